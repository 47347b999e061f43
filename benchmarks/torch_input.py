"""PyTorch's DataLoader in `benchmarks.input`, with a data set of the usual kind. This module does not import JAX.

Every image is loaded, cropped, flipped and normalised separately, in NumPy and Torch, as in torchvision's transforms.
"""

import pathlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils import data

from benchmarks import torch_tasks
from benchmarks.serve import Task

facts, device_memory = torch_tasks.facts, torch_tasks.device_memory

ENDLESS = 2**40  # images
PREFETCH = 2  # batches that each worker prepares in advance; PyTorch's default


def build(spec: dict[str, Any]) -> Task:
    """Build a loader of `benchmarks.input` and warm it up."""
    torch.manual_seed(0)
    task = Loader(spec)
    task.run(3)
    return task


class Images(data.Dataset):
    """Normalised images float32 [3, H, W], randomly cropped and flipped, with their labels.

    Args:
      spec: "images" and "labels" name .npy files with uint8 [N, H, W, 3] and integers [N]; or "folder" names a folder
        with one sub-folder of JPEGs for each class. With "raw", images are uint8 [H, W, 3] as they are, and those of an
        array are read by memory map.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._padding, self._raw = spec["padding"], spec.get("raw", False)
        self._mean = torch.tensor(torch_tasks.MEAN).view(3, 1, 1)
        self._std = torch.tensor(torch_tasks.STD).view(3, 1, 1)
        self._pixels: Any = None
        self._paths: list[pathlib.Path] = []
        if "folder" in spec:
            self._paths = sorted(pathlib.Path(spec["folder"]).glob("*/*.jpg"))
            names = sorted({path.parent.name for path in self._paths})
            self._labels = [names.index(path.parent.name) for path in self._paths]
        else:
            self._pixels = np.load(spec["images"], mmap_mode="r" if self._raw else None)
            self._labels = np.load(spec["labels"]).tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._pixels is not None:
            image = self._pixels[index]
        else:
            with Image.open(self._paths[index]) as file:
                image = np.asarray(file.convert("RGB"))
        if self._raw:
            return torch.from_numpy(np.array(image)), self._labels[index]
        height, width, _ = image.shape
        padding = self._padding
        padded = np.zeros((height + 2 * padding, width + 2 * padding, 3), np.uint8)
        padded[padding : padding + height, padding : padding + width] = image
        top, left = torch.randint(0, 2 * padding + 1, (2,)).tolist()
        cropped = torch.from_numpy(padded[top : top + height, left : left + width]).permute(2, 0, 1)
        if torch.rand(()) < 0.5:
            cropped = cropped.flip(-1)
        return cropped.float().div_(255).sub_(self._mean).div_(self._std), self._labels[index]


class Loader(Task):
    """An endless sequence of random batches, on the GPU if one is available."""

    def __init__(self, spec: dict[str, Any]) -> None:
        workers = spec["workers"]
        self._gpu = torch.cuda.is_available()
        images = Images(spec)
        loader: Any = data.DataLoader(
            images,
            batch_size=spec["batch_size"],
            sampler=data.RandomSampler(images, replacement=True, num_samples=ENDLESS),
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            pin_memory=self._gpu,
        )
        self._queued = workers * PREFETCH
        self._batches = iter(loader)

    def run(self, steps: int) -> None:
        """Make `steps` batches, one after the other."""
        for _ in range(steps):
            images, _ = next(self._batches)
            if self._gpu:
                images.cuda(non_blocking=True)
        if self._gpu:
            torch.cuda.synchronize()

    def settle(self) -> None:
        """Take the batches that are ready."""
        self.run(self._queued)
