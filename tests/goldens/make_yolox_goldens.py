"""Makes yolox_goldens.npz: what YOLOX and its backbone compute with random weights, and the layouts of their sizes.

    pip install torch==2.13.0 numpy && git clone https://github.com/Megvii-BaseDetection/YOLOX
    python tests/goldens/make_yolox_goldens.py YOLOX

The maps are those of a quarter of the width of YOLOX-s, in float64. Weights and image come from NumPy by the names of
the arrays (`drawn`), so they are not kept. YOLOX reads BGR images; `image` is RGB.

Of the whole network there are, at an eighth of the width: the answers for one image (x and y of the centre, width,
height, probability of an object and of each class), and the derivative of their weighted sum in one random direction
(`direction`) of each array, in the order of the names; and the same for two images in training mode, where BatchNorm
uses their own statistics.
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
WHOLE = {"tiny": (0.33, 0.375), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
CLASSES, WHOLE_WIDTH = 3, 0.0625


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of an array of the network."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if len(shape) == 4:
        return normal * np.sqrt(2 / np.prod(shape[1:]))
    return np.exp(0.2 * normal) if name.endswith(("bn.weight", "running_var")) else 0.1 * normal


def image(seed: int = 0) -> np.ndarray:
    """[side, side, 3]."""
    return np.random.default_rng(seed).normal(size=(SIDE, SIDE, 3))


def direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers by which the derivatives of an array, or the answers, are multiplied before they are added up."""
    return np.random.default_rng(zlib.crc32(f"direction of {name}".encode())).normal(size=shape)


def main(checkout: pathlib.Path) -> None:
    """Write the file beside this one."""
    import torch

    package = types.ModuleType("yolox_models")  # without what the others of its modules import
    package.__path__ = [str(checkout / "yolox" / "models")]
    sys.modules[package.__name__] = package
    for name in ("loguru", "yolox", "yolox.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["loguru"].logger = None
    vars(sys.modules["yolox.utils"]).update(dict.fromkeys(("bboxes_iou", "cxcywh2xyxy", "visualize_assign")))
    sys.modules["yolox.utils"].meshgrid = lambda sides: torch.meshgrid(sides, indexing="ij")
    from yolox_models.darknet import CSPDarknet
    from yolox_models.yolo_head import YOLOXHead
    from yolox_models.yolo_pafpn import YOLOPAFPN

    def backbone(depth: float, width: float) -> torch.nn.Module:
        return with_epsilon(CSPDarknet(depth, width))

    def whole(depth: float, width: float, classes: int) -> torch.nn.Module:
        parts = {"backbone": YOLOPAFPN(depth, width), "head": YOLOXHead(classes, width)}
        return with_epsilon(torch.nn.ModuleDict(parts))

    def with_epsilon(network: torch.nn.Module) -> torch.nn.Module:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3  # as all of YOLOX's own models have it
        return network

    def layout(network: torch.nn.Module, prefix: str = PREFIX) -> dict[str, list[int]]:
        arrays = network.state_dict().items()
        return {f"{prefix}{name}": list(each.shape) for name, each in arrays if "num_batches" not in name}

    def seen(*images: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.stack([each[:, :, ::-1] for each in images])).permute(0, 3, 1, 2)

    network = backbone(DEPTH, WIDTH).double().eval()
    layouts = {"case": layout(network)} | {name: layout(backbone(*size)) for name, size in SIZES.items()}
    state = {name: torch.tensor(drawn(name, tuple(shape))) for name, shape in layouts["case"].items()}
    network.load_state_dict({name.removeprefix(PREFIX): each for name, each in state.items()}, strict=False)
    with torch.no_grad():
        maps = network(seen(image()))
    arrays = {name: each[0].permute(1, 2, 0).numpy() for name, each in maps.items()}
    print({name: (each.shape, float(each.std())) for name, each in arrays.items()})

    network = whole(DEPTH, WHOLE_WIDTH, CLASSES).double().eval()
    layouts |= {"whole": layout(network, "")}
    layouts |= {f"yolox_{name}": layout(whole(*size, 80), "") for name, size in WHOLE.items()}
    state = {name: torch.tensor(drawn(name, tuple(shape))) for name, shape in layouts["whole"].items()}
    network.load_state_dict(state, strict=False)

    def derivatives(*images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        network.zero_grad()
        answers = network["head"](network["backbone"](seen(*images)))
        (answers * torch.tensor(direction("answers", tuple(answers.shape)))).sum().backward()
        named = sorted(network.named_parameters())
        along = [(direction(name, each.shape) * each.grad.numpy()).sum() for name, each in named]
        return answers.detach().numpy(), np.array(along)

    answers, arrays["derivatives"] = derivatives(image())
    arrays["answers"] = answers[0]
    network.train()
    network["head"].training = False  # the head alone answers, in place of losses
    _, arrays["derivatives_in_training"] = derivatives(image(), image(1))
    print(arrays["answers"].std(axis=0), np.abs(arrays["derivatives"]).min(), np.abs(arrays["derivatives"]).max())
    np.savez_compressed(pathlib.Path(__file__).parent / "yolox_goldens.npz", layouts=json.dumps(layouts), **arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
