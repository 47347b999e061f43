"""Every field of a run's configuration: type, range, default and what it does."""

import dataclasses
from typing import Annotated, Literal

from jaxcnn.config.fields_of_networks import Model, Norm
from jaxcnn.config.open_names import Open
from jaxcnn.config.ranges import AboveZero, AtLeast, AtMost, Count, Fraction, NonNegative, Positive

SCHEDULES = ("constant", "cosine", "multistep", "linear", "onecycle", "restarts", "trapezoid", "plateau")


@dataclasses.dataclass(frozen=True)
class Task:
    """What the network learns (`jaxcnn.tasks`)."""

    name: Literal["classification", "multilabel", "regression", "detection", "segmentation", "instances"] = (
        "classification"  # the kind of answer
    )
    loss: Annotated[str, Open("losses", optional=True)] = ""  # in place of the task's own
    evaluation: Annotated[str, Open("evaluations", optional=True)] = ""  # more figures, or others
    class_weights: Literal["none", "auto"] = "none"  # auto: inverse frequency with mean 1; not for regression
    weights_by_name: tuple[tuple[str, float], ...] = ()  # (class, weight); the other classes as by class_weights
    focal_gamma: Annotated[NonNegative, AtMost(100.0)] = 0.0  # (traced) focal loss; 0: off
    logit_adjustment: Annotated[NonNegative, AtMost(100.0)] = 0.0  # (traced) classification: its tau; 0: off
    generalized_q: Annotated[NonNegative, AtMost(1.0)] = (
        0.0  # (traced) classification: generalised cross-entropy, for labels that are partly wrong; 0: plain
    )
    error: Literal["squared", "absolute"] = "squared"  # regression
    specificity: Fraction = (
        0.0  # classification: also AUROC's interval, kappa and others, and the sensitivity at this specificity; 0: off
    )
    monitor: str = ""  # the figure of validation that decides, such as "balanced_accuracy"; empty: the task's own
    monitor_mode: Literal["auto", "min", "max"] = "auto"  # whether less or more of it is better; auto: by its name
    teacher: str = ""  # classification: workdir of a trained network to learn from; empty: none
    temperature: Annotated[AboveZero, AtMost(1000.0)] = 4.0  # (traced) of the distributions that are compared with it
    teacher_share: Fraction = 0.9  # (traced) share of this comparison in the loss; the labels have the rest
    most_boxes: Annotated[Positive, AtMost(10000)] = 128  # detection, instances: places for the boxes of an image
    most_found: Annotated[Positive, AtMost(1000)] = 100  # detection, instances: boxes found in an image
    most_overlap: Annotated[AboveZero, AtMost(1.0)] = 0.65  # detection, instances: of two found boxes of a class
    soft_suppression: Annotated[NonNegative, AtMost(100.0)] = (
        0.0  # detection, instances: sigma of soft suppression, such as 0.5, in place of most_overlap; 0: off
    )
    suppress_across: bool = False  # detection, instances: boxes of different classes suppress each other, too
    mask_side: Annotated[Positive, AtMost(1024)] = 56  # instances: of the grid of a true mask; a multiple of 8
    dice_share: Fraction = 0.0  # (traced) segmentation: share of the soft Dice loss; cross-entropy has the rest


@dataclasses.dataclass(frozen=True)
class Data:
    """Where examples come from (`jaxcnn.data`)."""

    source: str = (
        "tfds:cifar10"  # tfds:<name> | npz: | folder: | csv: | coco: | yolo: | voc:<path> | digits | synthetic[:…]
    )
    dir: str = ""  # the TFDS data_dir; empty: TFDS's own default
    train_split: str = "train"  # TFDS-like slices: "train[:90%]", "train[10000:]"; folders also "train[:80% by path]"
    test_split: str = "test"  # as train_split; empty: no test
    protocol: Literal["holdout", "full"] = "holdout"  # full: train on everything, no validation split
    val_split: str = ""  # a slice; empty: the set's own val or validation, else held out; "holdout": always hold out
    val_examples: Count = 5000  # held out of the training split, chosen by split_seed; of a smaller set, a tenth
    folds: Annotated[Count, AtMost(1000)] = 0  # k-fold cross-validation: parts of train, of which one validates; 0: off
    fold: Count = 0  # the part that validates, from 0; a sweep over it is the cross-validation
    split_seed: Annotated[Count, AtMost(2**63 - 1)] = 0  # which examples are held out
    stratify: bool = False  # hold out the same share of every class
    sampling: Literal["uniform", "balanced"] = "uniform"  # balanced: repeats examples of small classes
    image_column: str = ""  # csv: the column of image paths; empty: by a usual name, such as "image" or "path"
    label_column: str = ""  # csv: the column of labels, or several, as in "cat,dog"; empty: by a usual name
    label_separator: str = ";"  # csv: between the labels of an image, for config.task.name='multilabel'
    split_column: str = ""  # csv: train, val or test; empty: by a usual name; without any, the set is divided by itself
    group: str = (
        ""  # a column (csv) or array (npz) of each image's patient, site or sensor: held out whole, figures for each
    )
    images_below: str = (
        ""  # csv, coco, voc: a folder outside that of the list, below which images may lie, too; "/": any
    )
    weight_column: str = ""  # csv: multiplies the loss of each training example; empty: by a usual name
    channels: Annotated[Count, AtMost(1024)] = (
        0  # of image files: 3 RGB, 1 grey, others as stored; 0: 3, or the set's own
    )
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"  # of pixels; uint16 and float32: the values as stored
    image_size: Annotated[Count, AtMost(2**14)] = 0  # side of the resized square, pixels; 0: no resizing
    resize: Literal["crop", "pad", "stretch"] = "crop"  # to the square: centre only, black bars, or distorted
    grey16_max: Annotated[Positive, AtMost(65535)] = 65535  # the white of 16-bit grey; 4095 for 12-bit cameras
    max_megapixels: AboveZero = 500.0  # largest image; a resized JPEG counts with its decoded scale
    loader: Literal["auto", "resident", "stream"] = "auto"  # resident: on the device; stream: read ahead
    resident_gib: NonNegative = 4.0  # auto: sets up to this size (all splits) are kept on the device
    cache: str = ""  # keep decoded image files on disk, to read later epochs from: "auto" (cache folder), or a folder
    on_error: Literal["raise", "skip"] = (
        "raise"  # unreadable image or bad annotation: stop the run, or leave it out and count it
    )
    workers: Annotated[Count, AtMost(1024)] = 0  # parallel decoders of the stream loader; 0: one per core


@dataclasses.dataclass(frozen=True)
class Augment:
    """Training-time augmentation (`jaxcnn.data.augment`), off unless set; evaluation never augments."""

    normalize: bool = True  # subtract a mean and divide by a std, per channel
    crop: Literal["none", "zero", "reflect"] = "none"  # random crop after padding by crop_padding
    crop_padding: Count = 4  # pixels
    flip: Literal["none", "random", "alternating"] = "none"  # left to right; alternating: in one of every two epochs
    cutout: Count = 0  # side of the square, pixels
    erasing: Annotated[NonNegative, AtMost(1.0)] = (
        0.0  # random erasing: probability; a rectangle of 2 to 40 % of the area
    )
    zoom: Annotated[NonNegative, AtMost(0.75)] = (
        0.0  # images drawn larger or smaller by a factor from [1 - x, 1 + x], at a random place; 0: off
    )
    scale_jitter: tuple[float, ...] = ()  # as zoom, with factors from (lowest, highest), such as (0.1, 2.0); empty: off
    rotate: Annotated[NonNegative, AtMost(180.0)] = (
        0.0  # images turned about their centre by an angle drawn from [-x, x] degrees, black outside; 0: off
    )
    mosaic: Annotated[NonNegative, AtMost(1.0)] = (
        0.0  # detection, instances, segmentation: probability that an image is a part of four, two by two
    )
    mixup_boxes: Annotated[NonNegative, AtMost(1.0)] = (
        0.0  # detection, instances: probability that an image is the mean of two, with the objects of both
    )
    copy_paste: Annotated[NonNegative, AtMost(1.0)] = (
        0.0  # instances: probability that objects of another image are pasted into an image
    )
    single_from: Fraction = 0.0  # share of the run from which mosaic, mixup_boxes and copy_paste are off; 0: never off
    mixup: NonNegative = 0.0  # alpha of the Beta distribution; 0: off
    cutmix: NonNegative = 0.0  # alpha; if mixup is also on, each example gets one of the two
    brightness: Annotated[NonNegative, AtMost(255.0)] = 0.0  # colour jitter: factors drawn from [1 - x, 1 + x]
    contrast: Annotated[NonNegative, AtMost(255.0)] = 0.0  # the same
    saturation: Annotated[NonNegative, AtMost(255.0)] = 0.0  # the same
    hue: Annotated[NonNegative, AtMost(0.5)] = 0.0  # rotation drawn from [-x, x] turns of the colour circle, x <= 0.5
    policy: Literal["none", "randaugment", "trivialaugment", "autoaugment"] = "none"  # random operations on each image
    policy_layers: Annotated[Positive, AtMost(100)] = 2  # operations per image (randaugment)
    policy_magnitude: Annotated[NonNegative, AtMost(30.0)] = 9.0  # 0 to 30 (randaugment)
    own: tuple[Annotated[str, Open("augmentations")], ...] = ()  # functions of (image, key), one after another
    small_sides: tuple[int, ...] = ()  # progressive resizing: sides of the first training images, pixels
    small_until: tuple[float, ...] = ()  # each until this share of the run; then the size of evaluation
    sides: tuple[int, ...] = ()  # multi-scale training: each step draws the side of its images among these, pixels
    shapes: tuple[
        tuple[int, ...], ...
    ] = ()  # boxes: (height, width) of batches of wide or tall images, multiples of 32
    normalize_by: Literal["auto", "own", "imagenet", "given"] = (
        "auto"  # own: those of the training split; auto: those that the weights of config.init came with, else own
    )
    mean: tuple[float, ...] = ()  # normalize_by="given": of each channel; 8- and 16-bit pixels count from 0 to 1
    std: tuple[float, ...] = ()  # the same

    @property
    def factors(self) -> tuple[float, ...]:
        """The lowest and highest factor by which images are drawn larger or smaller; empty: they are not."""
        return self.scale_jitter or ((1.0 - self.zoom, 1.0 + self.zoom) if self.zoom else ())

    @property
    def composes(self) -> bool:
        """Whether images are made of several."""
        return self.mosaic > 0 or self.mixup_boxes > 0 or self.copy_paste > 0


@dataclasses.dataclass(frozen=True)
class Optim:
    """The optimiser and the loss. The fields marked (traced) are inputs of the compiled step, never constants."""

    name: Annotated[str, Open("optimizers", ("sgd", "adam", "adamw", "lars", "lamb", "muon"))] = "sgd"  # or of optax
    learning_rate: NonNegative = 0.1  # (traced) the schedule's peak
    momentum: Fraction = 0.9  # (traced) beta1 for adam, adamw and lamb
    nesterov: bool = True  # sgd, lars and muon
    beta2: Fraction = 0.999  # adam, adamw and lamb: decay of the squared gradient's average
    epsilon: AboveZero = 1e-8  # adam, adamw and lamb: added to the denominator
    weight_decay: NonNegative = 5e-4  # (traced) in the gradient (sgd, adam, lars, muon) or decoupled (adamw, lamb)
    decay_norm_and_bias: bool = False  # weight decay also on BatchNorm parameters and biases
    trust_coefficient: AboveZero = 0.001  # lars
    layers: tuple[tuple[str, float], ...] = ()  # (pattern of paths, factor of their learning rate); 0: frozen
    freeze_norm: bool = False  # BatchNorm uses its running statistics, and keeps these and its parameters
    newton_schulz_steps: Annotated[Positive, AtMost(100)] = 3  # muon
    newton_schulz_batched: bool = False  # muon: kernels of one shape in one call: the same up to rounding
    renormalize_every: Positive = 1  # muon: steps from one rescaling of all kernels to the next; the first step has one
    sgd_momentum: Fraction = 0.9  # muon: for the classifier, biases and BatchNorm scales, which use SGD
    bias_gradient_factor: NonNegative = 1.0  # muon: multiplies the gradient of biases and scales, at learning_rate
    classifier_gradient_factor: NonNegative = 1.0  # muon: the same for the classifier's kernel
    whitening_bias_epochs: NonNegative = 0.0  # airbench: epochs of training of its first bias; 0: to the end
    label_smoothing: Fraction = 0.0  # (traced)
    clip_norm: NonNegative = 0.0  # global norm of the gradient; 0: off
    accumulate_steps: Annotated[Positive, AtMost(1024)] = 1  # microbatches per step
    base_batch_size: Count = 0  # > 0: learning_rate is for this batch size, and scales with global_batch_size
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"  # type in which devices send their gradients
    sam_radius: Annotated[NonNegative, AtMost(1000.0)] = (
        0.0  # sharpness-aware minimisation: rho; doubles the work; 0: off
    )
    swa_from: Fraction = (
        0.0  # average of the weights of all steps from this share of the run on, in place of ema; 0: off
    )
    slimming: Annotated[NonNegative, AtMost(1.0)] = (
        0.0  # factor of the L1 norm of BatchNorm's scales, in the loss; 0: off
    )
    shared_values: Annotated[Count, AtMost(4096)] = (
        0  # most values of a kernel besides 0, whose equal weights stay equal (see compress --method=share); 0: off
    )
    quantized: Annotated[Count, AtMost(8)] = (
        0  # bits to which weights are rounded in training, activations to 8, as export --quantize=int8 does; 0: off
    )
    ema_decay: Fraction = 0.0  # moving average of parameters and batch_stats; after t steps at most (1 + t) / (10 + t)

    @property
    def averages(self) -> bool:
        """Whether the run keeps an average of its weights beside the last ones."""
        return self.ema_decay > 0 or self.swa_from > 0


@dataclasses.dataclass(frozen=True)
class Prune:
    """Weights that become zero during training, those of the smallest magnitude first, and stay zero."""

    sparsity: Fraction = 0.0  # share of the weights of kernels that are zero at the end; 0: off
    scope: Literal["layer", "global"] = "layer"  # the smallest of each layer, or of all layers together
    layers: tuple[tuple[str, float], ...] = ()  # (pattern of paths, sparsity of each of these layers); 0: never pruned
    begin: Fraction = 0.0  # from this share of the run on, zeros stay zero
    end: Fraction = 0.6  # share of the run at which the sparsity is reached; it rises from 0 by a cubic curve
    every: Positive = 100  # steps between prunings; the last is at `end`

    @property
    def is_on(self) -> bool:
        """Whether any layer is pruned."""
        return self.sparsity > 0 or any(share > 0 for _, share in self.layers)


@dataclasses.dataclass(frozen=True)
class Init:
    """The weights that a run starts from (`jaxcnn.weights`). A resumed run has its own, and never reads them again."""

    source: str = (
        ""  # workdir:<folder of a run> | workdirs:<folder>,… | file:<path> | hub:<repository> | jaxcnn:<name>; or ""
    )
    average: Literal["uniform", "greedy", "line"] = (
        "uniform"  # of workdirs: the mean of all; of those that help on validation; the best point between two
    )
    names: Literal["auto", "jaxcnn", "torchvision", "timm", "keras", "caffe", "lukemelas", "yolox"] = (
        "auto"  # whose names the arrays of a file have; auto: those that fit best
    )
    head: Literal["by_name", "new", "fitted"] = (
        "by_name"  # the classifier: classes of the same name are taken over, or none; fitted: to what the network sees
    )
    penalty: Annotated[NonNegative, AtMost(1000.0)] = (
        0.0  # head="fitted": of half the squared kernel, for features of deviation 1; 0: the best on validation
    )
    skip: tuple[str, ...] = ()  # patterns of parameters, as in optim.layers, that keep their drawn values
    partial: bool = (
        False  # start another network: arrays give the part that fits, and what is missing keeps its drawn values
    )
    reestimate_norm: bool = (
        False  # BatchNorm's running statistics are computed again from the training images before the first step
    )
    checkpoint: str = "tested"  # workdir: tested (as its test), last, best (on validation) or a step
    weights: Literal["auto", "last", "ema"] = "auto"  # workdir: of the step, or their average; auto: as in its test
    half: bool = False  # accept float16 and bfloat16


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate over time, as a factor of `optim.learning_rate`."""

    name: Annotated[str, Open("schedules", SCHEDULES)] = "cosine"  # the shape of the curve, after the warm-up
    unit: Literal["epochs", "steps"] = "epochs"  # unit of warmup, boundaries and period
    warmup: NonNegative = 0.0  # linear, from 1 / warm-up steps; onecycle: its rise, from 1/25 (0: 30 % of the run)
    boundaries: tuple[float, ...] = ()  # multistep
    decay_factor: AboveZero = 0.1  # multistep; plateau: the rate falls by this factor, below 1
    final_factor: NonNegative = 0.0  # end value of cosine, linear, onecycle, trapezoid and each restart; plateau: least
    period: AboveZero = 10.0  # restarts: length of the first cosine
    period_factor: Annotated[float, AtLeast(1.0), AtMost(1000.0)] = (
        1.0  # restarts: each cosine is so many times as long as the one before
    )
    cooldown: Annotated[AboveZero, AtMost(1.0)] = 0.2  # trapezoid: share of the run that is the linear fall at its end
    patience: Positive = 5  # plateau: validations without a new best, after which the rate falls


@dataclasses.dataclass(frozen=True)
class Run:
    """Length, rhythm and logging."""

    epochs: NonNegative = 200.0  # length of the run: passes over the training split
    steps: Count = 0  # > 0 replaces epochs
    eval_every_epochs: AboveZero = 1.0  # evaluation on the validation split, and at the end of the run
    eval_batch_size: Count = 0  # 0: the global batch size
    patience: Count = 0  # stop after this many validations without a new best; 0: never
    min_delta: NonNegative = 0.0  # patience: the least by which a new best must be better, in the figure's own unit
    log_every_steps: Positive = 50  # a record in metrics.jsonl
    steps_per_call: Annotated[Count, AtMost(2**20)] = 0  # most steps per call; 1: the plain loop, 0: automatic
    test_with: Literal["last", "best"] = "last"  # state for the single test: the last, or the best on validation
    tta: Literal["none", "flip", "flip_translate"] = "none"  # test-time augmentation, reported beside the plain figures
    tta_share: Annotated[AboveZero, AtMost(1.0)] = (
        1.0  # tta: share of the images that get it, those whose most probable class has the least probability
    )
    tensorboard: bool = True  # event files, if tensorboardX is installed
    loggers: tuple[Annotated[str, Open("loggers", ("wandb", "mlflow"))], ...] = ()  # which also get every record
    curves: bool = True  # draw curves.png and hardest.png at the end of the run, in about two seconds


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When checkpoints are written and which are kept."""

    every_epochs: NonNegative = 1.0  # 0: at the end only
    every_steps: Count = 0  # > 0 replaces every_epochs
    keep_last: Positive = 2  # newest checkpoints that are kept
    keep_best: Count = 1  # by the headline figure on validation, which protocol=full does not have
    keep_every_steps: Count = 0  # > 0: multiples of this step are saved and always kept


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Devices. Never changes the mathematics, so this group (and no other) may differ when a run is resumed."""

    devices: Count = 0  # local devices to use; 0: all
    model_devices: Positive = 1  # size of device groups that split the wide layers and get the same images
    shard_optimizer: bool = False  # each device stores and updates a part of the optimiser state ("ZeRO-1")
    shard_params: bool = False  # the same for parameters, which are gathered for each step ("FSDP")


@dataclasses.dataclass(frozen=True)
class Hosts:
    """How the processes of a run find each other (`jaxcnn.machine.hosts`) and how long they wait. Changes no result."""

    join: Literal["auto", "alone", "address", "slurm", "ompi", "mpi4py", "k8s", "gcetpu", "gketpu"] = (
        "auto"  # the launcher that tells each process its place; auto: the one that started it
    )
    coordinator: str = ""  # address: <host>:<port> of process 0; empty: $JAX_COORDINATOR_ADDRESS
    processes: Annotated[Count, AtMost(2**20)] = 0  # address: number of processes; 0: $JAX_NUM_PROCESSES
    process: Annotated[int, AtLeast(-1)] = -1  # address: number of this process, from 0; -1: $JAX_PROCESS_ID
    join_seconds: Annotated[Positive, AtMost(10**6)] = 120  # timeout for all processes to join
    heartbeat_seconds: Annotated[Positive, AtMost(10**6)] = 20  # silence after which a process counts as lost
    shutdown_seconds: Annotated[Positive, AtMost(10**6)] = 5  # timeout for all processes to end together


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `configs/*.py` build one as a ConfigDict; `jaxcnn.config.from_config_dict` checks it."""

    seed: Count = 0  # (traced) initialisation, order, augmentation and dropout
    global_batch_size: Positive = 128  # examples of a step, over all devices and hosts
    model: Model = Model()
    task: Task = Task()
    norm: Norm = Norm()
    init: Init = Init()
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    prune: Prune = Prune()
    schedule: Schedule = Schedule()
    run: Run = Run()
    checkpoint: Checkpoint = Checkpoint()
    parallel: Parallel = Parallel()
    hosts: Hosts = Hosts()
