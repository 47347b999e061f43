"""Devices: how many there are, what they can share, where caches lie."""

import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import pytest

from jaxcnn.config import ConfigError, UserError
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine import paths
from tests import small


def test_a_mesh_has_the_devices_asked_for_or_all():
    assert [meshes.make_mesh(n).size for n in (0, 1, 3, 8)] == [8, 1, 3, 8]
    assert meshes.make_mesh(2).axis_names == (meshes.DATA_AXIS, meshes.MODEL_AXIS)
    assert meshes.describe(meshes.make_mesh(2)) == "2 x cpu"


def test_devices_that_share_wide_layers_stand_together_in_the_order_of_the_devices():
    mesh = meshes.make_mesh(8, 2)
    assert [[device.id for device in row] for row in mesh.devices] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert (meshes.data_devices(mesh), meshes.model_devices(mesh)) == (4, 2)
    assert meshes.describe(mesh) == "8 x cpu (data 4 x model 2)"


def test_groups_that_do_not_fill_the_devices_are_a_config_error():
    with pytest.raises(ConfigError, match=r"^config\.parallel\.model_devices=3 does not divide the 8 devices of a pro"):
        meshes.make_mesh(8, 3)


def test_more_devices_than_there_are_is_a_config_error():
    with pytest.raises(ConfigError, match=r"^config\.parallel\.devices=9, but this process has 8 \(cpu\)$"):
        meshes.make_mesh(9)


@pytest.mark.parametrize(
    ("devices", "batch", "microbatches", "group", "words"),
    [
        (8, 20, 1, 0, "config.global_batch_size=20 is not divisible by 8 devices; change it, or choose fewer devices"),
        (4, 24, 3, 4, None),
        (8, 24, 3, 8, None),
        (2, 24, 8, 3, "not divisible by 2 devices x config.optim.accumulate_steps=8"),
        (8, 64, 1, 4, None),
        (8, 64, 1, 16, None),
        (2, 24, 1, 8, "config.norm.group_size=8 does not fit 12 examples per device (2 devices)"),
        (3, 24, 1, 0, None),
    ],
)
def test_a_batch_that_the_devices_cannot_share_is_refused(devices, batch, microbatches, group, words):
    config = small.config(global_batch_size=batch, optim={"accumulate_steps": microbatches}, norm={"group_size": group})
    if words is None:
        meshes.check_batch(config, devices)
    else:
        with pytest.raises(ConfigError) as error:
            meshes.check_batch(config, devices)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path))
    assert paths.cache_folder() == tmp_path
    monkeypatch.delenv("JAXCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.cache_folder() == tmp_path / "jaxcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache_folder() == pathlib.Path.home() / ".cache" / "jaxcnn"


def test_without_a_home_the_cache_is_a_temporary_folder_of_the_user_alone(monkeypatch, tmp_path, caplog):
    for variable in ("JAXCNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # HOME is not set, the user id has no entry
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", "")
    folder = tmp_path / f"jaxcnn-{os.getuid()}"
    for _ in range(2):  # from start to start
        paths._temporary_folder.cache_clear()
        assert paths.cache_folder() == paths.cache_folder() == folder
        assert folder.stat().st_mode & 0o777 == 0o700
    assert len(caplog.messages) == 2, "one remark for a start"
    assert f"caches are kept in {folder}; JAXCNN_CACHE=<folder>" in caplog.messages[0]
    folder.chmod(0o777)  # whoever made it may put programs into it
    paths._temporary_folder.cache_clear()
    try:
        assert paths.cache_folder() != folder
        assert paths.cache_folder().stat().st_mode & 0o777 == 0o700
        monkeypatch.setenv("JAXCNN_CACHE", "~/cache")
        with pytest.raises(UserError, match=r"^JAXCNN_CACHE=~/cache: there is no home folder '~'"):
            paths.cache_folder()
    finally:
        paths._temporary_folder.cache_clear()


def test_a_chosen_compile_cache_is_left_alone(monkeypatch):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", "/chosen")
        meshes.enable_compile_cache()
        assert jax.config.values["jax_compilation_cache_dir"] == "/chosen"
        jax.config.update("jax_compilation_cache_dir", None)
        meshes.enable_compile_cache()
        assert jax.config.values["jax_compilation_cache_dir"] == str(paths.cache_folder() / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_on_a_cpu_a_call_is_made_before_it_returns():
    program = """
from jaxcnn.machine import mesh
mesh.prepare_backend()
import jax
x = jax.numpy.ones((1000, 1000))
power = jax.jit(lambda x: x @ x @ x)
power(x).block_until_ready()
print(all(power(x).is_ready() for _ in range(5)))
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
