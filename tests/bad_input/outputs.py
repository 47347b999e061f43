"""The files that jaxcnn writes and reads again: for each kind, sound examples, and how they are read."""

import pathlib
import shutil
import types
from typing import Any

import numpy as np

from jaxcnn.config import recipes
from jaxcnn.deploy import digest, onnx_file, runtimes, stablehlo
from jaxcnn.reporting import read as read_runs
from jaxcnn.study import folder as study_folder
from jaxcnn.study import store
from jaxcnn.train import features, seals, summary, workdir
from jaxcnn.train.checkpoint import Checkpoints
from jaxcnn.weights import compressed, files
from tests import digits, runs
from tests.bad_input.reader import Maker, Reader

DEFINITION = types.SimpleNamespace(
    study="a", storage="a store", sampler="random", seed=0, generation=0, pruner="none", evaluations=1
)


def _weights(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    from safetensors.numpy import save_file

    arrays = {"params/a/kernel": np.ones((3, 4), np.float32), "params/a/bias": np.zeros(4, np.float32)}
    npz, safe, packed = folder / "weights.npz", folder / "weights.safetensors", folder / "weights.jxc"
    np.savez_compressed(npz, **arrays)  # type: ignore[arg-type]
    save_file(arrays, safe, {"class_names": "[]"})
    compressed.write(packed, arrays, {"class_names": "[]"})
    return [Reader((path,), lambda path=path: files.read(path)) for path in (npz, safe, packed)]


def _runs(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    """A finished run: its JSON files, its checkpoints, and its exported network."""
    import jax

    from jaxcnn.learn import sharded
    from jaxcnn.machine import mesh as meshes
    from jaxcnn.train import trained

    place = folder / "run"
    digits.run(place, run={"steps": 4})
    config = workdir.read_config(place)
    network, _ = trained.load(place, "last", "", 1)
    exported = folder / "a.stablehlo"
    stablehlo.write(network, exported)
    mesh = meshes.make_mesh(1)
    state = sharded.abstract_state(network.spec, mesh)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def read_files() -> None:
        workdir.check_config(place, config)
        workdir.read_config(place)
        workdir.read_data_facts(place)
        summary.read(place)

    def read_checkpoints() -> None:
        seals.newest_record(place / "checkpoints")
        checkpoints = Checkpoints(place / "checkpoints", config.checkpoint, read_only=True)
        try:
            checkpoints.newest_sound(state, sharding, set_aside=False)
        finally:
            checkpoints.close()

    inside = tuple(path for path in sorted((place / "checkpoints").rglob("*")) if path.is_file())
    return [
        Reader(tuple(sorted(place.glob("*.json"))), read_files, lines=True),
        Reader(inside, read_checkpoints, share=0.3),
        Reader((exported, exported.with_name("a.stablehlo.json")), lambda: stablehlo.read(exported)),
        *_onnx(network, folder),
        _features(folder),
        Reader(tuple(sorted(place.glob("*.json*"))), lambda: read_runs.read([place])),
        Reader((place / "config.json",), lambda: recipes.from_run(place), share=0.5, lines=True),
    ]


def _onnx(network: Any, folder: pathlib.Path) -> list[Reader]:
    """A file of ONNX as it is, and with the digest of what it became: then its other checks are met."""
    plain, sealed = folder / "a.onnx", folder / "b.onnx"
    onnx_file.write(network, plain)
    shutil.copy(plain, sealed)
    shape = (2, *network.spec.image_shape)

    def run(path: pathlib.Path, in_jax: bool) -> None:
        runtime = runtimes.of_file(path, 1, in_jax=in_jax)
        runtime.call(np.zeros(shape, runtime.image_dtype))

    def read_sealed() -> None:
        content = sealed.read_bytes()
        if digest._DIGEST.search(content):
            content = digest._DIGEST.sub(b"sha256\x12@" + digest.NO_DIGEST.encode(), content)
            sealed.with_name("c.onnx").write_bytes(digest.sealed(content))
            run(sealed.with_name("c.onnx"), in_jax=True)
            run(sealed.with_name("c.onnx"), in_jax=False)

    return [Reader((plain,), lambda: run(plain, in_jax=False), share=0.5), Reader((sealed,), read_sealed)]


def _features(folder: pathlib.Path) -> Reader:
    """Features of images, as `--mode=embed` writes them."""
    path = folder / "features.npz"
    values = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    features.write(features.Features(values, tuple("abcde"), np.arange(5), tuple("vwxyz")), path)

    def read() -> None:
        found = features.read(path)
        features.neighbours(found, found, 2)

    return Reader((path,), read)


def _stores(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    import optuna

    found = []
    for name, url in (("sqlite", f"sqlite:///{folder}/study.db"), ("journal", f"journal:{folder}/study.log")):
        storage = store.open_storage(url, 60)
        study = optuna.create_study(study_name="a", storage=storage)
        study.enqueue_trial({"x": 1.0})
        study.tell(study.ask(), 0.5)
        path = folder / ("study.db" if name == "sqlite" else "study.log")

        def read(url: str = url) -> None:
            store.load_study(DEFINITION, store.open_storage(url, 60)).get_trials()  # type: ignore[arg-type]

        found.append(Reader((path,), read, share=0.5))
    return found


def _sweeps(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    """The files of a finished sweep, as its workers and its report read them."""
    place = folder / "sweep"
    code, output = runs.run("--config=tests/tiny_sweep.py", "--config.run.steps=6", "--nomeasure",
                            f"--workdir={place}", module="jaxcnn.sweep")  # fmt: skip
    assert code == 0, output

    def read() -> None:
        study_folder.read_definition(place)
        for number in range(3):
            study_folder.read_trial(study_folder.trial_folder(place, number))
        read_runs.read([place])

    return [Reader((place / study_folder.SWEEP, *sorted(place.glob("trials/*/trial.json"))), read, lines=True)]


MAKERS: dict[tuple[str, ...], Maker] = {
    ("npz weights", "safetensors", "compressed weights"): _weights,
    (
        "files of a run",
        "checkpoint",
        "StableHLO",
        "ONNX",
        "ONNX with its digest",
        "features",
        "report of a run",
        "config of a run",
    ): _runs,
    ("sweep store (SQLite)", "sweep store (journal)"): _stores,
    ("files of a sweep",): _sweeps,
}
