"""The files that jaxcnn reads: for each kind, sound examples, and how they are read."""

import dataclasses
import pathlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from jaxcnn import config as configs
from jaxcnn.data import decode
from jaxcnn.data.source import open_splits
from jaxcnn.deploy import stablehlo
from jaxcnn.study import store
from jaxcnn.train import seals, summary, workdir
from jaxcnn.train.checkpoint import Checkpoints
from jaxcnn.weights import compressed, files
from tests import digits, test_boxes

DEFINITION = types.SimpleNamespace(
    study="a", storage="a store", sampler="random", seed=0, generation=0, pruner="none", evaluations=1
)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Files of one kind.

    Attributes:
      files: which are damaged, in a folder that is read as a whole.
      read: reads the folder, anew each time.
      share: how many cases it gets, where others get 1.
      lines: whether a refusal has a line for each mistake.
    """

    files: tuple[pathlib.Path, ...]
    read: Callable[[], Any]
    share: float = 1.0
    lines: bool = False


def _source(root: pathlib.Path, source: str, *damaged: pathlib.Path, boxes: bool = False) -> Reader:
    """A source of data: it is opened, and all images are read."""
    shape = {"image_size": 16, "resize": "pad" if boxes else "crop", "max_megapixels": 1.0}
    data = configs.Data(source=source, test_split="", protocol="full", **shape)  # type: ignore[arg-type]
    task = configs.Task(name="detection") if boxes else configs.Task()

    def read() -> None:
        splits = open_splits(data, task)
        splits.fingerprints()
        splits.train.read(np.arange(min(4, len(splits.train))))

    return Reader(damaged or tuple(path for path in sorted(root.rglob("*")) if path.is_file()), read)


def made(folder: pathlib.Path, images: pathlib.Path | None, only: str = "") -> dict[str, Reader]:
    """Readers by name, with examples made in a folder; `images`: more images to damage; `only`: names with this."""
    readers: dict[str, Reader] = {}
    for names, make in MAKERS.items():
        if any(only in name for name in names):
            readers |= zip(names, make(folder, images), strict=True)
    return {name: reader for name, reader in readers.items() if only in name}


def _sets(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    draws = np.random.default_rng(0)
    pixels, labels = draws.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), np.arange(12) % 3
    npz = folder / "set.npz"
    np.savez_compressed(npz, train_images=pixels, train_labels=labels)
    root = folder / "photos"
    for k, each in enumerate(pixels):
        place = root / "train" / f"class{k % 3}" / f"{k}.{('png', 'jpg')[k % 2]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(place)
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*.*g"))]
    table = root / "set.csv"
    table.write_text("image,label\n" + "".join(f"{name},{k % 3}\n" for k, name in enumerate(names)))
    photos = tuple(sorted(root.rglob("*.*g")))
    return [
        _source(folder, f"npz:{npz}", npz),
        _source(root, f"folder:{root}", *photos),
        _source(root, f"csv:{table}", table),
    ]


def _boxes(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    found = []
    for name in ("coco", "yolo", "voc"):
        place = folder / name
        place.mkdir()
        getattr(test_boxes, name)(place)
        found.append(_source(place, f"{name}:{place}", boxes=True))
    return found


def _pictures(folder: pathlib.Path, more: pathlib.Path | None) -> list[Reader]:
    own = folder / "images"
    own.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for kind in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        Image.fromarray(pixels).save(own / f"a.{kind}")
    for path in sorted(more.iterdir()) if more else []:
        if path.is_file() and path.stat().st_size < 2_000_000:
            (own / path.name).write_bytes(path.read_bytes())
    there = tuple(sorted(own.iterdir()))
    sizes = {path: path.stat().st_mtime_ns for path in there}

    def read() -> None:
        """Decode what was changed last, which is the damaged one."""
        changed = [path for path in there if path.stat().st_mtime_ns != sizes[path]]
        path = changed[0] if changed else own / "a.png"
        decode.decode(path.read_bytes(), 16, 3, max_megapixels=4.0)

    return [Reader(there, read, share=4.0)]


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
    ]


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


MAKERS: dict[tuple[str, ...], Callable[[pathlib.Path, pathlib.Path | None], list[Reader]]] = {
    ("images",): _pictures,
    ("npz set", "folder of images", "manifest"): _sets,
    ("COCO", "YOLO", "VOC"): _boxes,
    ("npz weights", "safetensors", "compressed weights"): _weights,
    ("files of a run", "checkpoint", "StableHLO"): _runs,
    ("sweep store (SQLite)", "sweep store (journal)"): _stores,
}
