"""Checks of a config that need neither data nor devices: values out of range, and impossible combinations."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, get_type_hints

from jaxcnn.config import networks, open_names, places, ranges, rules_of_tasks
from jaxcnn.config.fields import Config, Init, Optim, Prune, Schedule

OF_OUR_OPTIMIZERS = ("momentum", "nesterov", "beta2", "epsilon", "trust_coefficient", "newton_schulz_steps")
OF_SCHEDULES = {"period": "restarts", "period_factor": "restarts", "cooldown": "trapezoid", "patience": "plateau"}
STARTS = ("workdir", "workdirs", "file", "hub", "jaxcnn")  # kinds of config.init.source
WITHOUT_GROUPS = ("tfds", "digits", "synthetic", "folder", "coco", "yolo", "voc", "shapes", "masks")
WITHOUT_FILES = ("digits", "synthetic", "npz", "shapes", "arrays")  # sources whose images need no decoding
HELD_OUT = "holdout"  # data.val_split: hold out of the training split, even if the set has a validation split


def check(config: Config) -> list[str]:
    """The mistakes in a config, one line each; empty without any."""
    return [*_out_of_range(config), *_impossible(config)]


def _out_of_range(group: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(type(group), include_extras=True).items():
        value = getattr(group, name)
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(value, f"{prefix}{name}.")
        else:
            yield from ranges.violations(f"config.{prefix}{name}", value, ranges.of_hint(hint))


def _impossible(config: Config) -> list[str]:
    wrong: list[str] = []

    def need(condition: bool, line: str) -> None:
        if not condition:
            wrong.append(line)

    model, norm, optim, schedule, augment = config.model, config.norm, config.optim, config.schedule, config.augment
    need(
        model.num_classes != 1,
        "config.model.num_classes must be at least 2, or 0 for the number of classes of the data set",
    )
    if not any(open_names.foreign(model)):  # a network of a user may read any option
        wrong += networks.unread(model)
        wrong += networks.impossible_attention(model)
        wrong += networks.impossible_stages(model)
        wrong += networks.impossible_agnostic(model)
        wrong += networks.impossible_bins(model)
        wrong += networks.impossible_norm(model, norm)
        wrong += networks.impossible_channels(model)
        need(
            model.head == "linear" or model.form == "cifar",
            f"config.model.head={model.head!r} is for form='cifar'; form={model.form!r} has its own hidden layers",
        )
    wrong += rules_of_tasks.mistakes(config)
    wrong += places.mistakes(config)
    need(
        optim.name != "muon" or networks.only_normalised_convolutions(model),
        "config.optim.name='muon' renormalises kernels, so it needs BatchNorm or GroupNorm after every kernel except "
        "the classifier's: cnn, one of airbench and of resnet, or vgg with form='cifar', head='linear' and "
        "batch_norm=True, without config.model.attention",
    )
    need(
        optim.whitening_bias_epochs == 0 or model.name in networks.WHITENED,
        f"config.optim.whitening_bias_epochs is for {' and '.join(networks.WHITENED)}; {model.name} has no whitening "
        "layer",
    )
    if any(open_names.foreign(optim)):
        for name in OF_OUR_OPTIMIZERS:
            need(
                getattr(optim, name) == getattr(Optim, name),
                f"config.optim.{name} has no effect with config.optim.name={optim.name!r:.200}; give it as an option "
                "in the name, as in 'optax:lion(b1=0.95)'",
            )
    if optim.base_batch_size > 0:
        scaled = optim.learning_rate * config.global_batch_size / optim.base_batch_size
        need(
            ranges.as_float32(scaled) is not None,
            f"config.optim.learning_rate times config.global_batch_size / config.optim.base_batch_size is {scaled:g}, "
            "outside the range of float32",
        )
    batch, micro = config.global_batch_size, optim.accumulate_steps
    if batch > 0 and micro > 0:
        if batch % micro:
            wrong.append(f"config.global_batch_size={batch} is not divisible by config.optim.accumulate_steps={micro}")
        elif norm.group_size == 0 and micro > 1 and networks.has_batch_norm(model, norm):
            wrong.append(
                f"config.optim.accumulate_steps={micro} cannot be combined with BatchNorm statistics of the whole "
                f"batch (config.norm.group_size=0); set config.norm.group_size={batch // micro} or a divisor of it"
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
            "config.schedule.boundaries must be positive and increasing for schedule.name='multistep', but is "
            f"{schedule.boundaries}",
        )
    else:
        need(
            not schedule.boundaries,
            f"config.schedule.boundaries has no effect with schedule.name={schedule.name!r:.200}",
        )
    need(
        not (optim.freeze_norm and norm.name == "group"),
        "config.optim.freeze_norm is for BatchNorm, whose statistics stay; freeze config.norm.name='group' by "
        "config.optim.layers",
    )
    wrong += _impossible_schedule(schedule, config.data.protocol)
    need(
        len(augment.small_sides) == len(augment.small_until),
        f"config.augment.small_sides={augment.small_sides} and small_until={augment.small_until} must have the same "
        "length",
    )
    need(
        all(side > 0 for side in augment.small_sides),
        f"config.augment.small_sides must be above 0, but is {augment.small_sides}",
    )
    need(
        all(a < b for a, b in itertools.pairwise((0, *augment.small_until, 1))),
        f"config.augment.small_until must increase, with all values between 0 and 1, but is {augment.small_until}",
    )
    need(
        all(factor >= 0 for _, factor in optim.layers),
        f"config.optim.layers must have only factors of at least 0, but is {optim.layers}",
    )
    colours = augment.brightness, augment.contrast, augment.saturation, augment.hue
    need(
        config.data.dtype == "uint8" or (augment.policy == "none" and not any(colours)),
        "config.augment: policies and colour jitter are for 8-bit pixels; with config.data.dtype="
        f"{config.data.dtype!r}, set policy='none', and brightness, contrast, saturation and hue to 0",
    )
    wrong += _impossible_init(config.init)
    wrong += _impossible_pruning(config.prune)
    need(
        not optim.slimming or not optim.freeze_norm,
        "config.optim.slimming has no effect with config.optim.freeze_norm, which keeps the scales of BatchNorm",
    )
    need(
        not optim.shared_values or optim.name != "muon",
        "config.optim.shared_values is for optimisers that treat each weight alone, not for config.optim.name='muon'",
    )
    need(
        not optim.shared_values or not config.prune.is_on,
        "config.optim.shared_values keeps zeros at zero; leave config.prune.sparsity at 0, and prune before sharing",
    )
    wrong += _impossible_quantization(config)
    need(
        norm.name == "batch" or not config.init.reestimate_norm,
        "config.init.reestimate_norm has no effect without config.norm.name='batch'",
    )
    need(
        config.init.head != "fitted" or config.task.name == "classification",
        "config.init.head='fitted' is for config.task.name='classification' only",
    )
    need(
        config.init.head != "fitted" or config.init.penalty > 0 or config.data.protocol == "holdout",
        "config.init.penalty must be above 0 with config.data.protocol='full', which has no validation split to choose "
        "it on",
    )
    given = bool(augment.mean or augment.std)
    need(
        given == (augment.normalize_by == "given") and (augment.normalize or augment.normalize_by in ("auto", "own")),
        "config.augment.mean and std are for config.augment.normalize_by='given', which needs both of them, and "
        "config.augment.normalize=True",
    )
    need(
        len(augment.mean) == len(augment.std) and all(value > 0 for value in augment.std),
        f"config.augment.mean={augment.mean} and std={augment.std} must have one number for each channel, those of std "
        "above 0",
    )
    need(config.data.label_separator != "", "config.data.label_separator must not be empty")
    if not config.data.source.startswith("csv:"):
        for name in ("image_column", "label_column", "split_column", "weight_column"):
            column = getattr(config.data, name)
            need(not column, f"config.data.{name}={column!r:.200} is for config.data.source='csv:<path>' only")
    kind = config.data.source.partition(":")[0]
    need(
        not config.data.images_below or kind in ("csv", "coco", "voc"),
        f"config.data.images_below={config.data.images_below!r:.200} is for sources that list images: csv:, coco: and "
        f"voc:, not {kind}",
    )
    need(
        not config.data.group or kind not in WITHOUT_GROUPS,
        f"config.data.group={config.data.group!r:.200} needs a source that tells groups: csv:, npz:, arrays or your "
        f"own code, not {kind}",
    )
    need(
        not config.data.cache or kind not in WITHOUT_FILES,
        f"config.data.cache={config.data.cache!r:.200} keeps decoded image files, but {kind} has none; leave it empty",
    )
    need(config.run.steps > 0 or config.run.epochs > 0, "config.run.epochs (or config.run.steps) must be above 0")
    need(
        config.run.steps_per_call <= 1 or config.data.loader != "stream",
        f"config.run.steps_per_call={config.run.steps_per_call} needs the resident loader, not "
        "config.data.loader='stream'; set it to 0 or 1",
    )
    need(
        config.data.protocol == "full" or config.data.val_examples > 0 or config.data.val_split not in ("", HELD_OUT),
        "config.data.val_examples=0 leaves no validation examples; to train without validation, set "
        "config.data.protocol='full'",
    )
    need(
        config.run.patience == 0 or config.data.protocol == "holdout",
        "config.run.patience needs a validation split (config.data.protocol='holdout')",
    )
    need(
        config.run.min_delta == 0 or config.run.patience > 0,
        "config.run.min_delta has no effect without config.run.patience",
    )
    need(
        not (optim.swa_from and optim.ema_decay),
        "config.optim.swa_from and config.optim.ema_decay are two kinds of average; set one of them to 0",
    )
    data = config.data
    need(
        data.fold < max(data.folds, 1) and data.folds != 1,
        f"config.data.fold={data.fold} must be below config.data.folds={data.folds}, which must be 0 or at least 2",
    )
    need(
        not data.folds or (data.protocol == "holdout" and data.val_split in ("", HELD_OUT)),
        "config.data.folds takes validation from the training split; leave config.data.protocol='holdout' and "
        "config.data.val_split=''",
    )
    need(
        config.run.tta_share == 1 or (config.run.tta != "none" and config.task.name == "classification"),
        "config.run.tta_share chooses images by the probability of their class for config.run.tta; it needs "
        "config.task.name='classification' and a config.run.tta other than 'none'",
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


def _impossible_init(init: Init) -> list[str]:
    """The mistakes in the weights that a run starts from."""
    if not init.source:
        set_ = [field.name for field in dataclasses.fields(Init) if getattr(init, field.name) != field.default]
        return [f"config.init.{name} has no effect without config.init.source" for name in set_]
    kind, _, place = init.source.partition(":")
    if kind not in STARTS or not place:
        return [
            "config.init.source must be workdir:<folder of a run>, file:<path of a safetensors or npz file>, "
            f"hub:<repository>, jaxcnn:<name> or workdirs:<folder>,<folder>,…, not {init.source!r:.200}"
        ]
    if init.penalty and init.head != "fitted":
        return ["config.init.penalty is for config.init.head='fitted' only"]
    if init.average != "uniform" and kind != "workdirs":
        return [f"config.init.average={init.average!r} is for a source 'workdirs:<folder>,…', not {init.source!r:.200}"]
    of_workdirs = [name for name in ("checkpoint", "weights") if getattr(init, name) != getattr(Init, name)]
    of_files = [name for name in ("names", "half") if getattr(init, name) != getattr(Init, name)]
    others, what = (of_files, "file:' or 'hub:") if kind in ("workdir", "workdirs") else (of_workdirs, "workdir:")
    return [f"config.init.{name} is for a source '{what}', not {init.source!r:.200}" for name in others]


def _impossible_schedule(schedule: Schedule, protocol: str) -> list[str]:
    """The mistakes in the options of single schedules."""
    wrong = [
        f"config.schedule.{name} has no effect with schedule.name={schedule.name!r:.200}; it is for {owner!r}"
        for name, owner in OF_SCHEDULES.items()
        if schedule.name != owner and getattr(schedule, name) != getattr(Schedule, name)
    ]
    if schedule.name == "plateau" and schedule.decay_factor >= 1:
        wrong.append(
            f"config.schedule.decay_factor={schedule.decay_factor:g} must be below 1 with schedule.name='plateau'"
        )
    if schedule.name == "plateau" and protocol == "full":
        wrong.append("config.schedule.name='plateau' needs a validation split (config.data.protocol='holdout')")
    return wrong


def _impossible_pruning(prune: Prune) -> list[str]:
    """The mistakes in what is pruned."""
    wrong = []
    if not all(0 <= share < 1 for _, share in prune.layers):
        wrong.append(f"config.prune.layers must have only sparsities in [0, 1), but is {prune.layers}")
    if not prune.is_on:
        names = ("scope", "layers", "begin", "end", "every")
        changed = [name for name in names if getattr(prune, name) != getattr(Prune, name)]
        wrong += [f"config.prune.{name} has no effect without config.prune.sparsity above 0" for name in changed]
    if prune.begin > prune.end:
        wrong.append(f"config.prune.begin={prune.begin:g} must not be after config.prune.end={prune.end:g}")
    if prune.scope == "global" and prune.is_on and not prune.sparsity:
        wrong.append("config.prune.scope='global' needs config.prune.sparsity, that of all layers together")
    return wrong


def _impossible_quantization(config: Config) -> list[str]:
    """What does not go with weights that are rounded while they are trained."""
    if not config.optim.quantized:
        return []
    model = config.model
    ways = (
        (config.optim.quantized == 1, "is the number of bits of a weight, of which the sign is one; set at least 2"),
        (model.dtype != "float32", f"rounds what float32 computes; leave config.model.dtype={model.dtype!r} out"),
        (model.dropout > 0, "trains the network as it is exported, without dropout; set config.model.dropout=0"),
        (model.stochastic_depth > 0, "trains all blocks, as they are exported; set config.model.stochastic_depth=0"),
        (config.parallel.model_devices > 1, "needs whole kernels; set config.parallel.model_devices=1"),
    )
    return [f"config.optim.quantized={config.optim.quantized} {what}" for is_wrong, what in ways if is_wrong]
