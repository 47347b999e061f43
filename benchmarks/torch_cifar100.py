"""The speedrun on CIFAR-100 in plain PyTorch: `python -m benchmarks.torch_cifar100 <runs> <npz> [small]`.

The recipe of `configs/speedrun_cifar100.py`: same network, images, rates, schedule and number of epochs, in bfloat16
on a GPU. It is written in the style of airbench94_muon.py (github.com/KellerJordan/cifar10-airbench), and logs in its
columns, which `benchmarks.torch_log` reads: one run of warm-up, in which everything is compiled, and <runs> runs. The
clock of a run begins after the reset of the network; it has whitening, the set-up of augmentation and training.
"small" tries it with a narrow network for one epoch, without compilation. This module does not import JAX.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import torch_networks
from benchmarks.torch_muon import Muon

ROW = "|" + "|".join(f"  {{:>{width}}}  " for width in (6, 5, 11, 11, 11, 12)) + "|"
HEADS = ("run", "epoch", "train_acc", "val_acc", "tta_val_acc", "time_seconds")
MEAN, STD = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)  # of the training images
PADDING = 2  # pixels by which images are padded for random crops
WHITENED = 5000  # images for the whitening layer
TEST_BATCH = 1000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of `recipes.speedrun_cifar100`; the rates are those of a loss that is summed over the batch."""

    width: float = 1.0
    batch_size: int = 1000
    epochs: int = 10
    warmup_epochs: float = 2.0
    whitening_bias_epochs: float = 3.0
    sides: tuple[tuple[float, int], ...] = ((0.15, 20), (0.5, 24), (1.0, 32))  # each until this share of the run
    filter_rate: float = 0.18
    filter_momentum: float = 0.6
    bias_rate: float = 0.053
    head_rate: float = 6.0
    momentum: float = 0.85
    decay: float = 2e-6  # of the summed loss, in each step, for all parameters that SGD trains
    smoothing: float = 0.25
    compiled: bool = True


SMALL = Recipe(width=1 / 16, batch_size=32, epochs=1, warmup_epochs=0.5, compiled=False)


class Images:
    """Normalised images of a split on the device [N, 3, 32, 32], channels_last, and their labels [N]."""

    def __init__(self, arrays: np.lib.npyio.NpzFile, split: str, device: torch.device) -> None:
        self.labels = torch.from_numpy(arrays[f"{split}_labels"].astype("int64")).to(device)
        pixels = torch.from_numpy(arrays[f"{split}_images"]).to(device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (MEAN, STD))
        self.images = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


class Augmented:
    """Batches of an epoch: random crops of padded images, mirrored in one of every two epochs."""

    def __init__(self, of: Images, batch_size: int) -> None:
        self._labels, self._batch_size = of.labels, batch_size
        self._side = of.images.shape[-1]
        self._padded = nn.functional.pad(of.images, (PADDING,) * 4, "reflect")
        self._mirrored = torch.rand(len(of.labels), device=of.labels.device) < 0.5
        self.steps_per_epoch = len(of.labels) // batch_size

    def batch(self, order: torch.Tensor, number: int, epoch: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [B, 3, side, side] and labels [B] of a step of an epoch whose examples have this order."""
        index = order[number * self._batch_size : (number + 1) * self._batch_size]
        padded, device = self._padded[index], index.device
        moved = torch.randint(0, 2 * PADDING + 1, (2, len(index), 1), device=device)
        rows, columns = moved + torch.arange(self._side, device=device)
        mirrored = self._mirrored[index] ^ bool(epoch % 2)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        batch = torch.arange(len(index), device=device)[:, None, None]
        # Indexed by batch, row and column around the channels, the result is [B, side, side, 3].
        images = padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if side != self._side:
            images = nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images.contiguous(memory_format=torch.channels_last), self._labels[index]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is compiled for each shape alone, as jaxcnn's programs are."""
    torch._dynamo.config.recompile_limit = 64  # sides of images and shapes of filters
    return torch.compile(function, dynamic=False)


class Trainer:
    """The network, which is reset for each run, so that nothing is compiled twice."""

    def __init__(self, recipe: Recipe, classes: int, device: torch.device) -> None:
        self._recipe, self._classes, self._device = recipe, classes, device
        self._compiled = _compiled if recipe.compiled else lambda function: function
        self._module = self._new().to(device, memory_format=torch.channels_last)
        self._loss = self._compiled(self._loss_of)

    def run(self, train: Images, test: Images, name: str) -> None:
        """Train and test once, and print the rows of this run."""
        recipe, module = self._recipe, self._module
        module.load_state_dict(self._new().state_dict())
        module.train()
        self._synchronize()
        began = time.perf_counter()
        module.init_whitening(train.images[:WHITENED])
        source = Augmented(train, recipe.batch_size)
        optimizers = self._optimizers()
        steps = recipe.epochs * source.steps_per_epoch
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(train.labels), device=self._device)
            for number in range(source.steps_per_epoch):
                step = epoch * source.steps_per_epoch + number
                set_rates(optimizers, recipe, step, steps, source.steps_per_epoch)
                side = next(side for until, side in recipe.sides if step < round(until * steps))
                self._loss(*source.batch(order, number, epoch, side)).backward()
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            self._synchronize()
            print(ROW.format("" if epoch else name, epoch, "", "", "", f"{time.perf_counter() - began:.4f}"))
        accuracies = self._tested(test)
        self._synchronize()
        told = [f"{accuracy:.4f}" for accuracy in accuracies]
        print(ROW.format("", "eval", "", *told, f"{time.perf_counter() - began:.4f}"), flush=True)

    def _new(self) -> torch_networks.ResidualAirbench:
        return torch_networks.ResidualAirbench(self._classes, self._recipe.width)

    def _loss_of(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._logits(images)
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self._recipe.smoothing, reduction="sum")

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        on_gpu = self._device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext():
            return self._module(images).float()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD for the head and all biases, Muon for the filters; `set_rates` sets the rates."""
        recipe = self._recipe
        decay = recipe.decay * recipe.batch_size
        groups = []
        filters = []
        for name, parameter in self._module.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.ndim == 4:
                filters.append(parameter)
                continue
            rate = recipe.head_rate if parameter.ndim == 2 else recipe.bias_rate
            of_whitening = name == "whiten.bias"
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay / rate, "whitening": of_whitening})
        sgd = torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum, nesterov=True)
        muon = Muon(filters, recipe.filter_rate, recipe.filter_momentum, self._compiled)
        for group in (*sgd.param_groups, *muon.param_groups):
            group["peak"] = group["lr"]
        return [sgd, muon]

    @torch.inference_mode()
    def _tested(self, test: Images) -> tuple[float, float]:
        """The accuracy on the test images, without and with test-time augmentation: six views as in airbench94."""
        self._module.eval()
        plain = averaged = 0
        for start in range(0, len(test.labels), TEST_BATCH):
            images, labels = (rows[start : start + TEST_BATCH] for rows in (test.images, test.labels))
            size = images.shape[-1]
            padded = nn.functional.pad(images, (1,) * 4, "reflect")
            crops = (images, padded[:, :, :size, :size], padded[:, :, 2 : 2 + size, 2 : 2 + size])
            views = [(self._logits(crop), self._logits(crop.flip(3))) for crop in crops]
            mean = sum(w * (one + other) for w, (one, other) in zip((0.25, 0.125, 0.125), views, strict=True))
            plain += int((views[0][0].argmax(1) == labels).sum())
            averaged += int((mean.argmax(1) == labels).sum())
        return plain / len(test.labels), averaged / len(test.labels)

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def set_rates(
    optimizers: list[torch.optim.Optimizer], recipe: Recipe, step: int, steps: int, steps_per_epoch: int
) -> None:
    """Set the rates of a step: a linear rise and fall; the bias of the whitening layer falls over its own epochs."""
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    factor = (step + 1) / warmup if step < warmup else 1 - (step - warmup) / max(steps - warmup, 1)
    of_whitening = max(0.0, 1 - step / (recipe.whitening_bias_epochs * steps_per_epoch))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * (of_whitening if group.get("whitening") else factor)


def main(runs: str, npz: str, small: str = "") -> None:
    """Print the rows of a warm-up and of some runs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    with np.load(npz) as arrays:
        train, test = Images(arrays, "train", device), Images(arrays, "test", device)
    trainer = Trainer(SMALL if small else Recipe(), int(train.labels.max()) + 1, device)
    print(ROW.format(*HEADS))
    for name in ("warmup", *map(str, range(int(runs)))):
        trainer.run(train, test, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
