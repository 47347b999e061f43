"""Checks of how a config trains: optimiser, batches, schedule, pruning, quantisation, and starting weights."""

import dataclasses
from collections.abc import Iterator

from jaxcnn.config import networks, open_names, ranges
from jaxcnn.config.fields import Config, Init, Optim, Prune, Schedule
from jaxcnn.config.fields_of_networks import AUTO

OF_OUR_OPTIMIZERS = (
    *("momentum", "nesterov", "beta2", "epsilon", "trust_coefficient"),
    *("newton_schulz_steps", "newton_schulz_batched", "renormalize_every"),
)
OF_THE_CONFIG = ("learning_rate", "weight_decay")  # arguments of every optimiser that fields of the config set
OF_SCHEDULES = {"period": "restarts", "period_factor": "restarts", "cooldown": "trapezoid", "patience": "plateau"}
STARTS = ("workdir", "workdirs", "file", "hub", "jaxcnn")  # kinds of config.init.source


def mistakes(config: Config) -> list[str]:
    """The mistakes in how a run trains, one line each."""
    return [
        *_of_optimizer(config),
        *_of_combined(config),
        *_of_batches(config),
        *_of_schedule(config),
        *_of_pruning(config),
        *_of_quantization(config),
        *_of_start(config),
    ]


def _of_optimizer(config: Config) -> Iterator[str]:
    optim, model = config.optim, config.model
    if optim.name == "muon" and model.name != AUTO and not networks.only_normalised_convolutions(model):
        yield (
            "config.optim.name='muon' renormalises kernels, so it needs BatchNorm or GroupNorm after every kernel "
            "except the classifier's: cnn, one of airbench and of resnet, or vgg with form='cifar', head='linear' and "
            "batch_norm=True, without config.model.attention"
        )
    if optim.whitening_bias_epochs and model.name not in (*networks.WHITENED, AUTO):
        yield (
            f"config.optim.whitening_bias_epochs is for {' and '.join(networks.WHITENED)}; {model.name} has no "
            "whitening layer"
        )
    for name in OF_OUR_OPTIMIZERS if any(open_names.foreign(optim)) else ():
        if getattr(optim, name) != getattr(Optim, name):
            yield (
                f"config.optim.{name} has no effect with config.optim.name={optim.name!r:.200}; give it as an option "
                "in the name, as in 'optax:lion(b1=0.95)'"
            )
    options = open_names.parse(optim.name)[1] if any(open_names.foreign(optim)) else {}
    for name in OF_THE_CONFIG:
        if name in options:
            yield (
                f"config.optim.name={optim.name!r:.200} gives {name}, which would replace config.optim.{name}; set "
                "that field, and leave it out of the name"
            )
    if optim.base_batch_size > 0:
        scaled = optim.learning_rate * config.global_batch_size / optim.base_batch_size
        if ranges.as_float32(scaled) is None:
            yield (
                "config.optim.learning_rate times config.global_batch_size / config.optim.base_batch_size is "
                f"{scaled:g}, outside the range of float32"
            )
    if not all(factor >= 0 for _, factor in optim.layers):
        yield f"config.optim.layers must have only factors of at least 0, but is {optim.layers}"


def _of_combined(config: Config) -> Iterator[str]:
    """Options of the optimiser that exclude each other or those of other groups."""
    optim = config.optim
    if optim.freeze_norm and config.norm.name == "group":
        yield (
            "config.optim.freeze_norm is for BatchNorm, whose statistics stay; freeze config.norm.name='group' by "
            "config.optim.layers"
        )
    if optim.slimming and optim.freeze_norm:
        yield "config.optim.slimming has no effect with config.optim.freeze_norm, which keeps the scales of BatchNorm"
    if optim.shared_values and optim.name == "muon":
        yield (
            "config.optim.shared_values is for optimisers that treat each weight alone, not for "
            "config.optim.name='muon'"
        )
    if optim.shared_values and config.prune.is_on:
        yield (
            "config.optim.shared_values keeps zeros at zero; leave config.prune.sparsity at 0, and prune before sharing"
        )
    if optim.swa_from and optim.ema_decay:
        yield "config.optim.swa_from and config.optim.ema_decay are two kinds of average; set one of them to 0"


def _of_batches(config: Config) -> Iterator[str]:
    """The mistakes in how a batch is divided, into microbatches and groups of BatchNorm."""
    batch, micro, group = config.global_batch_size, config.optim.accumulate_steps, config.norm.group_size
    if batch <= 0 or micro <= 0:  # out of range
        return
    if batch % micro:
        yield f"config.global_batch_size={batch} is not divisible by config.optim.accumulate_steps={micro}"
    elif group == 0 and micro > 1 and networks.has_batch_norm(config.model, config.norm):
        yield (
            f"config.optim.accumulate_steps={micro} cannot be combined with BatchNorm statistics of the whole batch "
            f"(config.norm.group_size=0); set config.norm.group_size={batch // micro} or a divisor of it"
        )
    elif group > 0 and (batch // micro) % group:
        kind = "microbatch" if micro > 1 else "global batch"
        yield f"config.norm.group_size={group} does not divide the {kind} of {batch // micro}"


def _of_schedule(config: Config) -> list[str]:
    schedule, protocol = config.schedule, config.data.protocol
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
    boundaries = schedule.boundaries
    if schedule.name != "multistep":
        if boundaries:
            wrong.append(f"config.schedule.boundaries has no effect with schedule.name={schedule.name!r:.200}")
    elif not boundaries or boundaries[0] <= 0 or list(boundaries) != sorted(set(boundaries)):
        wrong.append(
            "config.schedule.boundaries must be positive and increasing for schedule.name='multistep', but is "
            f"{boundaries}"
        )
    return wrong


def _of_pruning(config: Config) -> list[str]:
    prune = config.prune
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


def _of_quantization(config: Config) -> list[str]:
    """Options that cannot be combined with weights that are rounded while they are trained."""
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


def _of_start(config: Config) -> Iterator[str]:
    """The mistakes in the weights that a run starts from."""
    init = config.init
    yield from _of_source(init)
    if init.reestimate_norm and config.norm.name != "batch":
        yield "config.init.reestimate_norm has no effect without config.norm.name='batch'"
    if init.head == "fitted" and config.task.name != "classification":
        yield "config.init.head='fitted' is for config.task.name='classification' only"
    if init.head == "fitted" and not init.penalty > 0 and config.data.protocol != "holdout":
        yield (
            "config.init.penalty must be above 0 with config.data.protocol='full', which has no validation split to "
            "choose it on"
        )


def _of_source(init: Init) -> list[str]:
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
