"""The run's configuration: frozen dataclasses, made and checked once, at the boundary.

A file in `configs/` returns an `ml_collections.ConfigDict` whose tree mirrors `Config`. `from_config_dict` turns it
into these dataclasses and `check` refuses impossible combinations; past that point nothing asks a dictionary for a
key, and a mistake can no longer surface in the middle of a run. Mistakes raise `ConfigError`, one line each.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import ml_collections

from jaxcnn import config_check, conversion


class UserError(Exception):
    """A mistake of the user's or of the machine: what happened, where, what to do; no traceback.

    Attributes:
      exit_code: of the command that it ends.
    """

    exit_code = 2


class ConfigError(UserError):
    """The configuration holds mistakes; `str` has one line for each of them."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The network (`jaxcnn.models`)."""

    name: Literal["alexnet", "vgg16", "resnet50", "cnn", "airbench", "airbench_residual"] = "vgg16"
    form: Literal["cifar", "imagenet"] = "cifar"  # stem for small images, or torchvision's layout
    num_classes: int = 0  # 0: as many as the data set has
    width: float = 1.0  # multiplies every channel count and hidden size
    head: Literal["linear", "dense4096"] = "linear"  # vgg16 in CIFAR form only
    batch_norm: bool = True  # alexnet and vgg16; the others always have it
    dropout: float = (
        0.0  # rate, where torchvision has it; in networks without hidden dense layers, before the classifier
    )
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters stay float32
    zero_init_residual: bool = True  # resnet50: the last BatchNorm scale of each block starts at 0


@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm. Statistics never depend on the device count."""

    momentum: float = 0.9  # weight of the old running statistics
    epsilon: float = 1e-5
    group_size: int = 0  # examples that share statistics; 0: the whole global batch


@dataclasses.dataclass(frozen=True)
class Data:
    """Where examples come from (`jaxcnn.data`)."""

    source: str = "tfds:cifar10"  # tfds:<name> | digits | synthetic[:HxWxC:classes:length] | npz:<path> | folder:<path>
    dir: str = ""  # the TFDS data_dir; empty: TFDS's own default
    train_split: str = "train"  # TFDS-like slices: "train[:90%]", "train[10000:]"; folders also "train[:80% by path]"
    test_split: str = "test"
    protocol: Literal["holdout", "full"] = "holdout"  # full: train on everything, no validation split
    val_split: str = ""  # a slice; empty: the set's own val or validation, else held out; "holdout": always held out
    val_examples: int = 5000  # held out of the training split, chosen by split_seed
    split_seed: int = 0
    stratify: bool = False  # hold out as large a share of every class
    image_size: int = 0  # side in pixels of the centre square, resized; the rest is cut away. 0: as the set has them
    grey16_max: int = 65535  # the value of 16-bit grey that is white; 4095 for the 12 bits of many cameras and X-rays
    max_megapixels: float = 500.0  # of an image; a JPEG that is resized counts as the reduced scale it is decoded at
    loader: Literal["auto", "resident", "stream"] = "auto"
    resident_gib: float = 4.0  # auto: sets up to this size (all splits, uint8) lie on the device
    on_error: Literal["raise", "skip"] = "raise"  # an unreadable image stops the run, or is left out and counted
    workers: int = 0  # parallel decoders of the stream loader; 0: one per core


@dataclasses.dataclass(frozen=True)
class Augment:
    """Training-time augmentation (`jaxcnn.data.augment`), off unless set; evaluation never augments."""

    normalize: bool = True  # by the training split's own mean and std per channel
    crop: Literal["none", "zero", "reflect"] = "none"  # random crop after padding by crop_padding
    crop_padding: int = 4  # pixels
    flip: Literal["none", "random", "alternating"] = "none"  # left to right; alternating: once in every two epochs
    cutout: int = 0  # side of the square, pixels
    mixup: float = 0.0  # alpha of the Beta distribution; 0: off
    cutmix: float = 0.0  # alpha; with mixup also on, each example gets one of the two
    brightness: float = 0.0  # colour jitter: factors drawn from [1 - x, 1 + x]
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # rotation drawn from [-x, x] turns of the colour circle, x <= 0.5
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    policy_layers: int = 2  # operations per image (randaugment)
    policy_magnitude: float = 9.0  # of 30 (randaugment)
    small_sides: tuple[int, ...] = ()  # progressive resizing: training images begin with these sides, pixels
    small_until: tuple[float, ...] = ()  # until these shares of the run; then they are as large as in evaluation


@dataclasses.dataclass(frozen=True)
class Optim:
    """The optimiser and the loss. The fields marked (traced) are inputs of the compiled step, never constants."""

    name: Literal["sgd", "adam", "adamw", "lars", "lamb", "muon"] = "sgd"
    learning_rate: float = 0.1  # (traced) the schedule's peak
    momentum: float = 0.9  # (traced) beta1 for adam, adamw and lamb
    nesterov: bool = True  # sgd, lars and muon
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 5e-4  # (traced) added to the gradient (sgd, adam, lars, muon), or decoupled (adamw, lamb)
    decay_norm_and_bias: bool = False  # weight decay also on BatchNorm parameters and biases
    trust_coefficient: float = 0.001  # lars
    newton_schulz_steps: int = 3  # muon
    sgd_momentum: float = 0.9  # muon: of the classifier, the biases and the BatchNorm scales, which take SGD
    bias_gradient_factor: float = 1.0  # muon: their gradient times this, at learning_rate (biases and scales)
    classifier_gradient_factor: float = 1.0  # muon: the same of the classifier's kernel
    whitening_bias_epochs: float = 0.0  # airbench: its first bias is trained so long, at a falling rate; 0: to the end
    label_smoothing: float = 0.0  # (traced)
    clip_norm: float = 0.0  # global norm of the gradient; 0: off
    accumulate_steps: int = 1  # microbatches per step
    base_batch_size: int = 0  # > 0: learning_rate is that of such a batch, and grows with global_batch_size
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"  # in which devices send their shares of the gradient
    ema_decay: float = 0.0  # moving average of parameters and batch_stats, after t steps at most (1 + t) / (10 + t)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate over time, as a factor of `optim.learning_rate`."""

    name: Literal["constant", "cosine", "multistep", "linear", "onecycle"] = "cosine"
    unit: Literal["epochs", "steps"] = "epochs"  # of warmup and boundaries
    warmup: float = 0.0  # linear, from 1 / its steps; onecycle: its rise, from 1/25 (0: 30 % of the run)
    boundaries: tuple[float, ...] = ()  # multistep
    decay_factor: float = 0.1  # multistep
    final_factor: float = 0.0  # cosine, linear, onecycle: where they end


@dataclasses.dataclass(frozen=True)
class Run:
    """Length, rhythm and logging."""

    epochs: float = 200.0
    steps: int = 0  # > 0 takes the place of epochs
    eval_every_epochs: float = 1.0
    eval_batch_size: int = 0  # 0: the global batch size
    log_every_steps: int = 50
    steps_per_call: int = 0  # at most, that the devices make without Python; 1: the plain loop, 0: chosen
    test_with: Literal["last", "best"] = "last"  # state for the one test: the last, or the best on validation
    tta: Literal["none", "flip", "flip_translate"] = "none"  # test-time augmentation, told of beside the plain figures
    tensorboard: bool = True


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When checkpoints are made and which are kept."""

    every_epochs: float = 1.0
    every_steps: int = 0  # > 0 takes the place of every_epochs
    keep_last: int = 2
    keep_best: int = 1  # by validation accuracy; protocol=full has none
    keep_every_steps: int = 0  # > 0: multiples of this step are saved, and kept for good


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Devices. Never changes the mathematics, so it alone may differ when a run is resumed."""

    devices: int = 0  # local devices to use; 0: all
    model_devices: int = 1  # groups of so many split the wide layers (models/split.py: RULES), and see the same images
    shard_optimizer: bool = False  # each device keeps and updates a part of the optimiser's state ("ZeRO-1")
    shard_params: bool = False  # and of the parameters, which are gathered for each step ("FSDP")


@dataclasses.dataclass(frozen=True)
class Hosts:
    """How the processes of a run find each other (`jaxcnn.hosts`) and how long they wait. Changes no result."""

    join: Literal["auto", "alone", "address", "slurm", "ompi", "mpi4py", "k8s", "gcetpu", "gketpu"] = "auto"
    coordinator: str = ""  # address: <host>:<port> of process 0; empty: $JAX_COORDINATOR_ADDRESS
    processes: int = 0  # address: how many there are; 0: $JAX_NUM_PROCESSES
    process: int = -1  # address: which one this is, from 0; -1: $JAX_PROCESS_ID
    join_seconds: int = 120  # for all processes to come
    heartbeat_seconds: int = 20  # of silence, after which a process counts as lost
    shutdown_seconds: int = 5  # for all processes to end together


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `configs/*.py` build one as a ConfigDict; `from_config_dict` checks it."""

    seed: int = 0  # (traced) initialisation, order, augmentation and dropout
    global_batch_size: int = 128
    model: Model = Model()
    norm: Norm = Norm()
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()
    checkpoint: Checkpoint = Checkpoint()
    parallel: Parallel = Parallel()
    hosts: Hosts = Hosts()


def default() -> ml_collections.ConfigDict:
    """A ConfigDict with every field of `Config` at its default, for the files in `configs/` to change."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def choices(key: str) -> tuple[str, ...]:
    """The values that a field with a closed list of them may have, by its flat key; else nothing."""
    cls: Any = Config
    for name in key.split("."):
        cls = get_type_hints(cls)[name]
    return get_args(cls) if get_origin(cls) is Literal else ()


def unknown_variant(variant: str, known: tuple[str, ...]) -> ConfigError:
    """The error for `--config=configs/x.py:<variant>` with a variant that the file does not have."""
    return ConfigError(
        f"no variant ':{variant}' in this config file{conversion.nearest(variant, known)}; it has: {', '.join(known)}"
    )


def from_config_dict(tree: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Convert a ConfigDict (or nested mapping) to a checked `Config`.

    Raises:
      ConfigError: unknown keys (with the nearest right one), wrong types, values out of range or impossible
        combinations, one line each.
    """
    if isinstance(tree, ml_collections.ConfigDict):
        tree = tree.to_dict()
    mistakes: list[str] = []
    config = conversion.convert(Config, tree, "config", mistakes)
    if not mistakes:
        mistakes = check(config)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The nested plain dictionary of a config, as kept in `config.json` (tuples become lists there)."""
    return dataclasses.asdict(config)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"name": "sgd"}}` -> `{"optim.name": "sgd"}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def check(config: Config) -> list[str]:
    """What is impossible about a config before data and devices are known; one line each, empty if all is well."""
    return config_check.check(config, flatten(to_dict(config)))
