"""The values of a complete trial that a sweep may optimise."""

import math
import pathlib
from collections.abc import Collection
from typing import Any

from jaxcnn.config import Config
from jaxcnn.study import spec
from jaxcnn.train.hooks import Shared
from jaxcnn.train.summary import headline_of

LATENCY_SECONDS = 2.0  # seconds of measuring


def values(
    summary: dict[str, Any], config: Config, folder: pathlib.Path, shared: Shared, wanted: Collection[str] = ()
) -> dict[str, float]:
    """The headline figure of the tested weights on validation, seconds of the steps, and others that are wanted.

    The test split is not used.

    Args:
      summary: summary of the run.
      config: config of the run.
      folder: workdir of the run.
      shared: shared data of the run.
      wanted: names of objectives from `spec.OBJECTIVES`; those of training are always included. "flops" are the
        operations of the forward pass of one image; "latency" is the median time of an answer for one image, in
        milliseconds.
    """
    found = {"train_seconds": float(summary["train_seconds"])}
    if summary["val_best"] is not None:
        best = config.run.test_with == "best"
        headline = headline_of(summary)
        value = summary["val_best"][headline.key] if best else summary["val_last"]
        found[headline.objective] = math.nan if value is None else float(value)
    if "parameters" in wanted:
        found["parameters"] = float(summary["parameters"])
    if "flops" in wanted:
        found["flops"] = float(_flops(config, shared))
    if "latency" in wanted:
        found["latency"] = _milliseconds(folder)
    return found


def _flops(config: Config, shared: Shared) -> int:
    from jaxcnn.learn import costs
    from jaxcnn.train.setup import spec_on

    return sum(layer.flops for layer in costs.layers(spec_on(config, shared.splits(config.data, config.task))))


def _milliseconds(folder: pathlib.Path) -> float:
    from jaxcnn.deploy import latency, runtimes
    from jaxcnn.train import trained

    network, _ = trained.load(folder, trained.TESTED, "", 1)
    (timing,) = latency.measure(runtimes.of_run(network), [1], LATENCY_SECONDS)
    return 1000 * timing.p50


def shown(name: str, value: float) -> str:
    """The value of one of `spec.OBJECTIVES` as text that follows the figure on validation."""
    if name == "train_seconds":
        return f" in {value:.1f} s"
    if name == "latency":
        return f", {value:.2f} ms"
    if name == "flops":
        return f", {value / 1e6:,.2f} Mflop"
    assert name in spec.OBJECTIVES, name
    return f", {value:,.0f} {spec.OBJECTIVES[name]}"
