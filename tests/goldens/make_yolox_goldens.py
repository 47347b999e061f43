"""Makes yolox_goldens.npz: what the backbone of YOLOX computes with random weights, and the layouts of two sizes.

    pip install torch==2.13.0 numpy && git clone https://github.com/Megvii-BaseDetection/YOLOX
    python tests/goldens/make_yolox_goldens.py YOLOX

The maps are those of a quarter of the width of YOLOX-s, in float64. Weights and image come from NumPy by the names of
the arrays (`drawn`), so they are not kept. YOLOX reads BGR images; `image` is RGB.
"""

import json
import pathlib
import sys
import types
import zlib

import numpy as np

SIDE, DEPTH, WIDTH = 64, 0.33, 0.125
SIZES = {"yolo_csp_s": (0.33, 0.5), "yolo_csp_m": (0.67, 0.75)}
PREFIX = "backbone.backbone."


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of an array of the network."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if len(shape) == 4:
        return normal * np.sqrt(2 / np.prod(shape[1:]))
    return np.exp(0.2 * normal) if name.endswith(("bn.weight", "running_var")) else 0.1 * normal


def image() -> np.ndarray:
    """[side, side, 3]."""
    return np.random.default_rng(0).normal(size=(SIDE, SIDE, 3))


def main(checkout: pathlib.Path) -> None:
    """Write the file beside this one."""
    import torch

    package = types.ModuleType("yolox_models")  # without what the others of its modules import
    package.__path__ = [str(checkout / "yolox" / "models")]
    sys.modules[package.__name__] = package
    from yolox_models.darknet import CSPDarknet

    def backbone(depth: float, width: float) -> torch.nn.Module:
        network = CSPDarknet(depth, width)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3  # as all of YOLOX's own models have it
        return network

    def layout(network: torch.nn.Module) -> dict[str, list[int]]:
        arrays = network.state_dict().items()
        return {f"{PREFIX}{name}": list(each.shape) for name, each in arrays if "num_batches" not in name}

    network = backbone(DEPTH, WIDTH).double().eval()
    layouts = {"case": layout(network)} | {name: layout(backbone(*size)) for name, size in SIZES.items()}
    state = {name: torch.tensor(drawn(name, tuple(shape))) for name, shape in layouts["case"].items()}
    network.load_state_dict({name.removeprefix(PREFIX): each for name, each in state.items()}, strict=False)
    with torch.no_grad():
        maps = network(torch.tensor(image()[:, :, ::-1].copy()).permute(2, 0, 1)[None])
    arrays = {name: each[0].permute(1, 2, 0).numpy() for name, each in maps.items()}
    print({name: (each.shape, float(each.std())) for name, each in arrays.items()})
    np.savez_compressed(pathlib.Path(__file__).parent / "yolox_goldens.npz", layouts=json.dumps(layouts), **arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
