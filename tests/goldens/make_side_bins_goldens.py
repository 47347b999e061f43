"""Makes side_bins_goldens.npz: boxes from distributions, their losses and gradients, stated again in PyTorch.

    pip install torch==2.13.0 numpy
    python tests/goldens/make_side_bins_goldens.py

In float64. The loss of a point is 2 (1 - GIoU) + 0.25 DFL, each as in its paper: arXiv 1902.09630 (algorithm 1) and
arXiv 2006.04388 (equations 5 and 6). The inputs come from NumPy (`drawn`), so they are not kept.
"""

import pathlib

import numpy as np

BINS = 9


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [n, 4 * bins], points [n, 3] and true boxes [n, 4], some of which reach beyond the last bin."""
    random = np.random.default_rng(11)
    stride = random.choice([8.0, 16.0, 32.0], (40, 1))
    place = np.floor(random.uniform(0, 8, (40, 2))) * stride + stride / 2
    sides = random.uniform(0, BINS + 1, (40, 4)) * stride
    sides[0] = [2 * stride[0, 0], 0, 3.25 * stride[0, 0], (BINS - 1) * stride[0, 0]]  # distances on bins
    sides[1, 0] = -0.25 * stride[1, 0]  # a point outside of its box
    boxes = np.concatenate([place - sides[:, :2], place + sides[:, 2:]], axis=1)
    return random.normal(0, 2, (40, 4 * BINS)), np.concatenate([place, stride], axis=1), boxes


def main() -> None:
    """Write the file beside this one."""
    import torch

    logits, points, true = (torch.tensor(each, dtype=torch.float64) for each in drawn())
    logits.requires_grad_()
    rows = logits.view(-1, 4, BINS)
    distance = rows.softmax(2) @ torch.arange(BINS, dtype=torch.float64) * points[:, 2:]
    boxes = torch.cat([points[:, :2] - distance[:, :2], points[:, :2] + distance[:, 2:]], dim=1)

    def product(box: torch.Tensor) -> torch.Tensor:
        return (box[:, 2:] - box[:, :2]).clamp(min=0).prod(dim=1)

    common = product(torch.cat([boxes[:, :2].max(true[:, :2]), boxes[:, 2:].min(true[:, 2:])], dim=1))
    around = product(torch.cat([boxes[:, :2].min(true[:, :2]), boxes[:, 2:].max(true[:, 2:])], dim=1))
    union = product(boxes) + product(true) - common
    of_boxes = 1 - (common / union - (around - union) / around)

    wanted = torch.cat([points[:, :2] - true[:, :2], true[:, 2:] - points[:, :2]], dim=1) / points[:, 2:]
    wanted = wanted.clamp(0, BINS - 1)
    left = wanted.floor().long().clamp(max=BINS - 2)  # y_i, with y_(i+1) = y_i + 1
    flat = rows.reshape(-1, BINS)
    near, next_one = (
        torch.nn.functional.cross_entropy(flat, bin.reshape(-1), reduction="none").view(-1, 4)
        for bin in (left, left + 1)
    )
    of_sides = ((left + 1 - wanted) * near + (wanted - left) * next_one).mean(dim=1)
    (2 * of_boxes + 0.25 * of_sides).sum().backward()
    arrays = {"boxes": boxes, "of_boxes": of_boxes, "of_sides": of_sides, "gradient": logits.grad}
    folder = pathlib.Path(__file__).parent
    np.savez_compressed(
        folder / "side_bins_goldens.npz", **{name: each.detach().numpy() for name, each in arrays.items()}
    )


if __name__ == "__main__":
    main()
