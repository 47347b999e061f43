"""Flags for a GPU are set where there is one, never against the user, and are known to the installed XLA."""

import os
import subprocess
import sys

import pytest

from jaxcnn.machine import xla_flags
from tests import runs

DEFAULTS = {"xla_gpu_first": "true", "xla_gpu_second": "2"}
OURS = xla_flags.merged("", xla_flags.GPU_FLAGS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "--xla_gpu_first=true --xla_gpu_second=2"),
        ("--xla_gpu_first=false", "--xla_gpu_second=2 --xla_gpu_first=false"),
        ("--xla_gpu_first --xla_gpu_second=1", "--xla_gpu_first --xla_gpu_second=1"),
        ("--xla_gpu_firstly=1", "--xla_gpu_first=true --xla_gpu_second=2 --xla_gpu_firstly=1"),
        ("flags.txt", "flags.txt"),
    ],
)
def test_the_users_flags_win_one_by_one(before, after):
    assert xla_flags.merged(before, DEFAULTS) == after


@pytest.mark.parametrize(
    ("environment", "plugin", "expected"),
    [
        ({}, "jax_cuda12_plugin", OURS),
        ({}, "jax_cuda13_plugin", OURS),
        ({"JAX_PLATFORMS": "cuda,cpu"}, "jax_cuda13_plugin", OURS),
        ({"JAX_PLATFORMS": "cpu"}, "jax_cuda13_plugin", None),
        ({"JAXCNN_XLA_FLAGS": "off"}, "jax_cuda13_plugin", None),
        ({"JAXCNN_XLA_FLAGS": "0"}, "jax_cuda13_plugin", None),
        ({}, "", None),
    ],
)
def test_they_are_set_where_a_gpu_may_start_and_nowhere_else(environment, plugin, expected, monkeypatch):
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", xla_flags.SWITCH):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(xla_flags.util, "find_spec", lambda name: name if name == plugin else None)
    monkeypatch.setattr(xla_flags, "_tried", lambda: True)
    xla_flags.apply()
    assert os.environ.get("XLA_FLAGS") == expected


def test_none_is_set_for_a_jaxlib_that_they_were_not_tried_with(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(xla_flags, "gpu_wanted", lambda environment: True)
    monkeypatch.setattr(xla_flags.metadata, "version", lambda name: "0.99.0")
    xla_flags.apply()
    assert "XLA_FLAGS" not in os.environ


@pytest.mark.parametrize(("flags", "known"), [(OURS, True), (f"{OURS} --xla_gpu_no_such_flag=1", False)])
def test_the_installed_xla_knows_them_and_would_end_the_process_at_an_unknown_one(flags, known):
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.numpy.zeros(3).block_until_ready()"],
        cwd=runs.ROOT, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode == 0) == known, done.stderr
