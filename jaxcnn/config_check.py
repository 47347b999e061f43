"""What is impossible about a config before data and devices are known: values out of range, and combinations.

Each number has bounds, so that a slip of the pen is told at once, and neither hangs a run nor ends it in a library.
What only the data can bound is in `jaxcnn.train.limits`.
"""

import itertools
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.config import Config, Model

HELD_OUT = "holdout"  # data.val_split: held out of the training split, even where the set has one for validation
WHITENED = ("airbench", "airbench_residual")  # networks whose first layer is patch whitening
NORMALISED = (*WHITENED, "cnn", "resnet50")  # whatever their form: BatchNorm after every kernel but the classifier's


def check(config: "Config", flat: Mapping[str, Any]) -> list[str]:
    """What is wrong with a config, one line each; `flat` has its fields by flat key."""
    return [*_out_of_range(flat), *_impossible(config)]


def _out_of_range(flat: Mapping[str, Any]) -> Iterator[str]:
    for key in _AT_LEAST_ZERO:
        if flat[key] < 0:
            yield f"config.{key} must not be negative, but is {flat[key]}"
    for key in _ABOVE_ZERO:
        if flat[key] <= 0:
            yield f"config.{key} must be above 0, but is {flat[key]}"
    for key in _FRACTIONS:
        if not 0 <= flat[key] < 1 or _as_float32(flat[key]) == 1:
            yield f"config.{key} must be in [0, 1), but is {flat[key]}"
    for key, value in flat.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and not number <= (most := AT_MOST.get(key, INT32)):
                yield f"config.{key} must be at most {most}, but is {number}"
            elif isinstance(number, float):
                if key in AT_MOST and number > AT_MOST[key]:
                    yield f"config.{key} must be at most {AT_MOST[key]:g}, but is {number:g}"
                elif _as_float32(number) is None:
                    yield f"config.{key}={number:g} is beyond what float32 holds: 0, or 1.2e-38 to 3.4e38 in size"


def _as_float32(number: float) -> float | None:
    """The float32 nearest to a number; None for one that is too large, or too small to be other than 0 in arithmetic.

    XLA takes numbers below the smallest normal one for 0.
    """
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        return None
    return nearest if number == 0 or abs(nearest) >= 2.0**-126 else None


def _impossible(config: "Config") -> list[str]:
    wrong: list[str] = []

    def need(condition: bool, line: str) -> None:
        if not condition:
            wrong.append(line)

    model, norm, optim, schedule, augment = config.model, config.norm, config.optim, config.schedule, config.augment
    need(model.num_classes != 1, "config.model.num_classes must be at least 2, or 0 for the data set's own")
    need(
        model.head == "linear" or (model.name == "vgg16" and model.form == "cifar"),
        "config.model.head='dense4096' is for model.name='vgg16' with form='cifar' only",
    )
    need(
        model.batch_norm or model.name in ("alexnet", "vgg16"),
        f"config.model.batch_norm=False is for alexnet and vgg16; {model.name} always has BatchNorm",
    )
    need(
        model.name not in ("cnn", *WHITENED) or model.form == "cifar",
        f"config.model.name={model.name!r} has only form='cifar'",
    )
    need(
        optim.name != "muon" or _only_normalised_convolutions(model),
        "config.optim.name='muon' renormalises kernels, so it needs BatchNorm after every one but the classifier's: "
        "airbench, airbench_residual, cnn, resnet50, or vgg16 with form='cifar', head='linear' and batch_norm=True",
    )
    need(
        optim.whitening_bias_epochs == 0 or model.name in WHITENED,
        f"config.optim.whitening_bias_epochs is for {' and '.join(WHITENED)}; {model.name} has no whitening layer",
    )
    if optim.base_batch_size > 0:
        scaled = optim.learning_rate * config.global_batch_size / optim.base_batch_size
        need(
            _as_float32(scaled) is not None,
            f"config.optim.learning_rate times config.global_batch_size / config.optim.base_batch_size is {scaled:g}, "
            "beyond what float32 holds",
        )
    batch, micro = config.global_batch_size, optim.accumulate_steps
    if batch > 0 and micro > 0:
        if batch % micro:
            wrong.append(f"config.global_batch_size={batch} is not divisible by config.optim.accumulate_steps={micro}")
        elif norm.group_size == 0 and micro > 1 and model.batch_norm:
            wrong.append(
                f"config.optim.accumulate_steps={micro} cannot have BatchNorm statistics of the whole batch "
                f"(config.norm.group_size=0); set config.norm.group_size={batch // micro} or a divisor of it"
            )
        elif norm.group_size > 0 and (batch // micro) % norm.group_size:
            wrong.append(
                f"config.norm.group_size={norm.group_size} does not divide the "
                f"{'microbatch' if micro > 1 else 'global batch'} of {batch // micro}"
            )
    if schedule.name == "multistep":
        need(
            bool(schedule.boundaries)
            and schedule.boundaries[0] > 0
            and list(schedule.boundaries) == sorted(set(schedule.boundaries)),
            f"config.schedule.boundaries must be positive and rise for multistep, but is {schedule.boundaries}",
        )
    else:
        need(not schedule.boundaries, f"config.schedule.boundaries has no meaning for schedule.name={schedule.name!r}")
    need(
        1 <= config.data.grey16_max <= 65535,
        f"config.data.grey16_max must be from 1 to 65535, but is {config.data.grey16_max}",
    )
    need(
        len(augment.small_sides) == len(augment.small_until),
        f"config.augment.small_sides={augment.small_sides} and small_until={augment.small_until} must be as many",
    )
    need(
        all(side > 0 for side in augment.small_sides),
        f"config.augment.small_sides must be above 0, but is {augment.small_sides}",
    )
    need(
        all(a < b for a, b in itertools.pairwise((0, *augment.small_until, 1))),
        f"config.augment.small_until must rise from above 0 to below 1, but is {augment.small_until}",
    )
    need(config.hosts.process >= -1, f"config.hosts.process must be at least -1, but is {config.hosts.process}")
    need(config.run.steps > 0 or config.run.epochs > 0, "config.run.epochs (or config.run.steps) must be above 0")
    need(
        config.run.steps_per_call <= 1 or config.data.loader != "stream",
        f"config.run.steps_per_call={config.run.steps_per_call} needs the resident loader, not "
        "config.data.loader='stream'; set it to 0 or 1",
    )
    need(
        config.data.protocol == "full" or config.data.val_examples > 0 or config.data.val_split not in ("", HELD_OUT),
        "config.data.val_examples=0 leaves nothing to decide on; config.data.protocol='full' trains without validation",
    )
    need(
        config.run.test_with == "last" or config.data.protocol == "holdout",
        "config.run.test_with='best' needs a validation split (config.data.protocol='holdout')",
    )
    need(
        config.run.test_with == "last" or config.checkpoint.keep_best > 0,
        "config.run.test_with='best' needs config.checkpoint.keep_best of at least 1",
    )
    return wrong


def _only_normalised_convolutions(model: "Model") -> bool:
    """Whether a network is known to consist of convolutions with BatchNorm and one dense layer."""
    if model.name == "vgg16":
        return model.form == "cifar" and model.head == "linear" and model.batch_norm
    return model.name in NORMALISED


_AT_LEAST_ZERO = """
    model.num_classes norm.group_size data.val_examples data.split_seed data.image_size data.resident_gib
    data.workers augment.crop_padding augment.cutout augment.mixup augment.cutmix augment.brightness
    augment.contrast augment.saturation augment.hue augment.policy_magnitude optim.learning_rate optim.weight_decay
    optim.clip_norm optim.bias_gradient_factor optim.classifier_gradient_factor optim.whitening_bias_epochs
    optim.base_batch_size schedule.warmup schedule.final_factor run.epochs run.steps run.eval_batch_size
    run.steps_per_call checkpoint.every_epochs checkpoint.every_steps checkpoint.keep_best checkpoint.keep_every_steps
    parallel.devices hosts.processes seed
""".split()  # noqa: SIM905 (a list would take a line for each)
_ABOVE_ZERO = """
    global_batch_size model.width norm.epsilon augment.policy_layers optim.epsilon optim.trust_coefficient
    optim.newton_schulz_steps optim.accumulate_steps schedule.decay_factor run.eval_every_epochs run.log_every_steps
    checkpoint.keep_last parallel.model_devices hosts.join_seconds hosts.heartbeat_seconds hosts.shutdown_seconds
    data.max_megapixels
""".split()  # noqa: SIM905 (a list would take a line for each)
_FRACTIONS = """
    model.dropout norm.momentum optim.momentum optim.sgd_momentum optim.beta2 optim.label_smoothing optim.ema_decay
""".split()  # noqa: SIM905 (a list would take a line for each)

INT32 = 2**31 - 1  # of any other integer
# Far above what is of use, and below what a library, a compiler or a machine stands.
AT_MOST = {
    "data.split_seed": 2**63 - 1,
    "data.image_size": 2**14,
    "data.workers": 1024,
    "model.width": 1024.0,
    "augment.hue": 0.5,
    "augment.policy_magnitude": 30.0,
    "augment.policy_layers": 100,
    "augment.brightness": 255.0,
    "augment.contrast": 255.0,
    "augment.saturation": 255.0,
    "optim.newton_schulz_steps": 100,
    "optim.accumulate_steps": 1024,
    "run.steps_per_call": 2**20,
    "hosts.processes": 2**20,
    "hosts.join_seconds": 10**6,
    "hosts.heartbeat_seconds": 10**6,
    "hosts.shutdown_seconds": 10**6,
}
