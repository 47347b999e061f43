"""Files that answer without the folder of their run: their facts are changed, and then sealed anew.

A checksum alone would refuse each change, and the checks behind it would never be met.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn.deploy import beside, digest, onnx_file, runtimes, stablehlo
from jaxcnn.machine import json_text
from jaxcnn.serve.service import Service
from jaxcnn.train import exported, of_facts, seals, trained
from jaxcnn.weights import compressed, files
from tests import digits
from tests.bad_input.mutations import STRUCTURE
from tests.bad_input.reader import Maker, Reader


def _answers(path: pathlib.Path) -> None:
    """What `jaxcnn.serve --file` does: build the network from the file alone, and answer one image."""
    if path.suffix in runtimes.WEIGHTS:
        service = Service(of_facts.read(path)[0], 1, 4.0)
    else:
        runtime = runtimes.of_file(path, 1, in_jax=path.suffix == runtimes.ONNX)
        service = Service(of_facts.of(runtime.facts, path.name), 1, 4.0, runtime)
    service.warm_up()


def _texts(facts: dict[str, Any]) -> dict[str, str]:
    """Facts as they are written into a file."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def _made(folder: pathlib.Path, _images: pathlib.Path | None) -> list[Reader]:
    place = folder / "alone"
    digits.run(place / "run", run={"steps": 4})
    network, _ = trained.load(place / "run", "last", "", 1)
    told = place / "facts.json"
    told.write_text(json.dumps({name: json_text.parse_or_keep(text) for name, text in exported.facts(network).items()}))
    arrays = {name: np.asarray(value) for name, value in seals.on_host(network.variables).items()}
    hlo, onnx = place / "a.stablehlo", place / "a.onnx"
    stablehlo.write(network, hlo)
    onnx_file.write(network, onnx)

    def reader(write: Callable[[dict[str, Any]], pathlib.Path]) -> Reader:
        return Reader((told,), lambda: _answers(write(json.loads(told.read_bytes()))), how=STRUCTURE)

    return [reader(lambda facts: _safetensors(place, arrays, facts)), reader(lambda facts: _jxc(place, arrays, facts)),
            reader(lambda facts: _hlo(hlo, facts)), reader(lambda facts: _onnx(onnx, facts))]  # fmt: skip


def _safetensors(place: pathlib.Path, arrays: dict[str, Any], facts: dict[str, Any]) -> pathlib.Path:
    files.write(place / "b.safetensors", arrays, _texts(facts))
    return place / "b.safetensors"


def _jxc(place: pathlib.Path, arrays: dict[str, Any], facts: dict[str, Any]) -> pathlib.Path:
    compressed.write(place / "b.jxc", arrays, _texts(facts))
    return place / "b.jxc"


def _hlo(sound: pathlib.Path, facts: dict[str, Any]) -> pathlib.Path:
    beside.write(sound.with_name("b.stablehlo"), sound.read_bytes(), _texts(facts))
    return sound.with_name("b.stablehlo")


def _onnx(sound: pathlib.Path, facts: dict[str, Any]) -> pathlib.Path:
    import onnx

    model = onnx.load(str(sound))
    onnx.helper.set_model_props(model, _texts(facts) | {"sha256": digest.NO_DIGEST})
    sound.with_name("b.onnx").write_bytes(digest.sealed(model.SerializeToString()))
    return sound.with_name("b.onnx")


MAKERS: dict[tuple[str, ...], Maker] = {
    ("facts of safetensors", "facts of compressed weights", "facts of StableHLO", "facts of ONNX"): _made
}
