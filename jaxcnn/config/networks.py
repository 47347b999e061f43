"""The options of `config.model` that each of our networks reads, as data: the networks themselves are not imported."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from jaxcnn.config.fields_of_networks import AUTO, Model, Norm

OF_EVERY_NETWORK = ("name", "num_classes", "width", "dropout", "dtype")
ATTENTION = ("attention", "attention_ratio", "attention_place", "attention_stages")
VGG = ("vgg11", "vgg13", "vgg16", "vgg19")
RESNET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
CIFAR_RESNET = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
SQUEEZENET = ("squeezenet1_0", "squeezenet1_1")
INVERTED = ("efficientnet_lite0", "mobilenet_v2")  # of inverted residual blocks
YOLO = ("yolo_cnn", "yolo_resnet18", "yolo_resnet50", "yolo_csp_s", "yolo_csp_m", "yolo_mobilenet_v2")
YOLOX = ("yolox_tiny", "yolox_s", "yolox_m", "yolox_l", "yolox_x")  # in the layout of its files, with objectness
ONE_STAGE = (*YOLO, *YOLOX)
FASTER = ("faster_rcnn_cnn", "faster_rcnn_resnet18", "faster_rcnn_resnet50")
DETECTORS = (*ONE_STAGE, *FASTER)  # of config.task.name="detection"
SEGMENTERS = ("unet", "unet_small", "unet_resnet18", "unet_resnet50")  # of config.task.name="segmentation"
INSTANCES = ("mask_rcnn_cnn", "mask_rcnn_resnet18", "mask_rcnn_resnet50")  # of config.task.name="instances"
TWO_STAGE = (*FASTER, *INSTANCES)
BACKBONES = {  # the network for classification with these layers, in form="imagenet"; CSPDarknet is in files alone
    **{"yolo_csp_s": "csp_s", "yolo_csp_m": "csp_m", "yolo_mobilenet_v2": "mobilenet_v2"},
    **{"yolo_resnet18": "resnet18", "yolo_resnet50": "resnet50"},
    **{"unet_resnet18": "resnet18", "unet_resnet50": "resnet50"},
    **{"faster_rcnn_resnet18": "resnet18", "faster_rcnn_resnet50": "resnet50"},
    **{"mask_rcnn_resnet18": "resnet18", "mask_rcnn_resnet50": "resnet50"},
}
STAGED = ("stage_blocks", "stage_channels", "stage_kernels")
OF_RESNET = (
    "form",
    "activation",
    "colours",
    "channels",
    "zero_init_residual",
    "last_stride",
    "shortcut",
    "stem",
    "stochastic_depth",
)
ON_RESNET = tuple(name for name, backbone in BACKBONES.items() if backbone in RESNET)
OF_BACKBONES = ("channels", "zero_init_residual", "shortcut", "stem", "stochastic_depth", *ATTENTION)
OPTIONS: dict[str, tuple[str, ...]] = {  # besides those
    "airbench": (),
    "airbench_residual": (),
    "alexnet": ("form", "batch_norm", "activation", "pooling", "colours", "channels", *ATTENTION),
    "cnn": ("activation", "pooling", "colours", "channels", *ATTENTION),
    "convnext_tiny": ("form", "stochastic_depth"),
    "efficientnet_b0": ("form", "stochastic_depth", "channels"),
    **dict.fromkeys(INVERTED, ("form", "stochastic_depth", "channels", *ATTENTION)),
    **dict.fromkeys(SQUEEZENET, ("form", "channels", *ATTENTION)),
    **dict.fromkeys(("unet", "unet_small"), ()),
    **dict.fromkeys(YOLOX, ()),
    **dict.fromkeys(("faster_rcnn_cnn", "mask_rcnn_cnn"), ("class_agnostic",)),
    **dict.fromkeys(("yolo_cnn", "yolo_csp_s", "yolo_csp_m"), ("box_bins",)),
    "yolo_mobilenet_v2": ("stochastic_depth", "channels", "box_bins"),
    **dict.fromkeys(ON_RESNET, OF_BACKBONES),
    **dict.fromkeys(("yolo_resnet18", "yolo_resnet50"), (*OF_BACKBONES, "box_bins")),
    **dict.fromkeys([name for name in TWO_STAGE if name in BACKBONES], (*OF_BACKBONES, "class_agnostic")),
    **dict.fromkeys(RESNET, (*OF_RESNET, *ATTENTION)),
    **dict.fromkeys(
        CIFAR_RESNET,
        ("activation", "colours", "channels", *STAGED, "zero_init_residual", "stochastic_depth", *ATTENTION),
    ),
    **dict.fromkeys(VGG, ("form", "head", "batch_norm", "activation", "pooling", "colours", "channels", *ATTENTION)),
}
WHITENED = ("airbench", "airbench_residual")  # the first layer whitens patches
WITHOUT_NORM = (*SQUEEZENET, "convnext_tiny")
# norm.name="group" in place of BatchNorm; those that whiten have BatchNorm without scales
WITH_GROUP_NORM = tuple(name for name in OPTIONS if name not in (*WHITENED, *WITHOUT_NORM))
# In every form: BatchNorm after each kernel except the classifier's, and no depthwise kernels.
NORMALISED = (*WHITENED, "cnn", *RESNET, *CIFAR_RESNET)
# Stages end where the image gets smaller; in networks of inverted residual blocks, where the channels change.
STAGES = {
    **{"alexnet": 3, "cnn": 2},
    **dict.fromkeys(SQUEEZENET, 3),
    **dict.fromkeys(CIFAR_RESNET, 3),
    **dict.fromkeys((*RESNET, *ON_RESNET), 4),
    **dict.fromkeys(VGG, 5),
    **dict.fromkeys(INVERTED, 7),
}
BETWEEN_STAGES = ("bam", "nonlocal")  # attention that its paper puts there; the others into each block
WITH_BATCH_NORM = ("bam", "nonlocal", "coordinate")  # attention that has BatchNorm of its own
BRANCHED = (*RESNET, *ON_RESNET, *CIFAR_RESNET, *INVERTED)
# What given weights compute from an image does not depend on these options. Classes are fitted by their names.
OF_TRAINING = (
    *("model.num_classes", "model.dropout", "model.stochastic_depth", "model.dtype", "model.zero_init_residual"),
    *("norm.momentum", "norm.group_size"),
)
BY_CHOICE = ("model.last_stride",)  # it does on these, which are often set anew for images of another size


def readers(option: str) -> tuple[str, ...]:
    """Our networks that read an option of `config.model`."""
    return tuple(name for name, options in OPTIONS.items() if option in (*OF_EVERY_NETWORK, *options))


def unread(model: Model) -> list[str]:
    """One line for each option of one of our networks that has another value than its default and is not read."""
    lines = []
    for field in dataclasses.fields(model):
        value, those = getattr(model, field.name), readers(field.name)
        if value != field.default and model.name not in those:
            *others, last = those
            listed = f"{', '.join(others)} and {last}" if others else last
            lines.append(f"config.model.{field.name}={value!r} is for {listed}; {model.name} has no such option")
    return lines


def backbone_of(model: Model) -> Model | None:
    """The network for classification that another one has as its backbone; None for networks without."""
    name = BACKBONES.get(model.name)
    if name is None:
        return None
    plain = dataclasses.replace(model, class_agnostic=Model.class_agnostic, box_bins=Model.box_bins)
    return dataclasses.replace(plain, name=name, form="imagenet")


def differing(model: Model, norm: Norm, there: Mapping[str, Any]) -> dict[str, Any]:
    """The options in which a network computes otherwise than the one that weights are of, with the values of that one.

    All fields but those of OF_TRAINING count, so a new field does, too.

    Args:
      model: the network.
      norm: its normalisation, which does not count in networks without.
      there: "model" and "norm" of the other network, as in `config.json`; fields that are missing are not compared.

    Returns:
      values by option, such as {"model.activation": "gelu"}.
    """
    has_norm = norm.name != "batch" or has_batch_norm(model, norm)
    differ = {}
    groups: dict[str, Model | Norm] = {"model": model} | ({"norm": norm} if has_norm else {})
    for group, own in groups.items():
        theirs = there.get(group)
        for field in dataclasses.fields(own):
            name = f"{group}.{field.name}"
            if not isinstance(theirs, Mapping) or field.name not in theirs or name in OF_TRAINING:
                continue
            if _plain(theirs[field.name]) != _plain(getattr(own, field.name)):
                differ[name] = theirs[field.name]
    return differ


def taken(model: Model, norm: Norm, there: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a network with the name "auto" takes from the one that weights are of, by their flat keys.

    These are its name and, of the options in `differing`, those that have their default here.

    Args:
      model: the network; its name may be "auto".
      norm: its normalisation.
      there: "model" and "norm" of the other network, as in `config.json`; fields that are missing are not taken.
    """
    own = {"model": model, "norm": norm}
    found = {}
    for key, value in differing(model, norm, there).items():
        group, _, name = key.partition(".")
        if key == "model.name" or getattr(own[group], name) == getattr(type(own[group]), name):
            found[key] = value
    return found


def beside_auto(flat: Mapping[str, Any], given: Collection[str]) -> list[str]:
    """One line for each option that the user set to its default although the weights decide it (`model.name="auto"`).

    Args:
      flat: the flat config.
      given: keys that the user has set.
    """
    if flat.get("model.name") != AUTO:
        return []
    defaults = {
        f"{group}.{field.name}": field.default
        for group, kind in (("model", Model), ("norm", Norm))
        for field in dataclasses.fields(kind)
    }
    return [
        f"config.{key}={flat[key]!r} is the default, in whose place config.model.name='auto' takes what the weights of "
        "config.init.source have; leave it out, or set config.model.name, too"
        for key in given
        if key in defaults and key not in (*OF_TRAINING, "model.name") and _plain(flat[key]) == _plain(defaults[key])
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it: lists in place of tuples."""
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def has_batch_norm(model: Model, norm: Norm) -> bool:
    """Whether a network has BatchNorm somewhere; one that is not ours may have it unless `batch_norm` is False."""
    in_place = norm.name == "group" and model.name in WITH_GROUP_NORM
    return (model.batch_norm and model.name not in WITHOUT_NORM and not in_place) or model.attention in WITH_BATCH_NORM


def impossible_norm(model: Model, norm: Norm) -> list[str]:
    """The mistakes in the options of normalisation of one of our networks, one line each."""
    if norm.name == "batch":
        return ["config.norm.groups has no effect with config.norm.name='batch'"] if norm.groups != Norm.groups else []
    if model.name not in WITH_GROUP_NORM:
        has = "none" if model.name in WITHOUT_NORM else "one without scales"
        return [f"config.norm.name='group' takes the place of BatchNorm, and {model.name} has {has}"]
    wrong = []
    if not model.batch_norm:
        wrong.append("config.norm.name='group' has no effect with config.model.batch_norm=False")
    if model.attention not in WITH_BATCH_NORM:
        set_ = [name for name in ("momentum", "group_size") if getattr(norm, name) != getattr(Norm, name)]
        wrong += [f"config.norm.{name} is for BatchNorm; config.norm.name='group' has no such option" for name in set_]
    return wrong


def attention_place(model: Model, stage: int) -> str:
    """Where one of our networks has attention in a stage: "inner", "branch", "block" or "stage"; empty: nowhere.

    MobileNetV3 (arXiv:1905.02244) and coordinate attention (arXiv:2103.02907) gate the depthwise convolutions of
    inverted residual blocks; the papers of the other gates, the ends of residual branches.
    """
    place, stages = model.attention_place, model.attention_stages
    if place == "auto" and model.attention in BETWEEN_STAGES:
        place = "stage"
    elif place == "auto":
        place = "inner" if model.name in INVERTED else "branch" if model.name in BRANCHED else "block"
    has = stage in stages if stages else place != "stage" or stage < STAGES[model.name]
    return place if has and model.attention != "none" else ""


def impossible_channels(model: Model) -> list[str]:
    """The mistakes in `model.channels`, one line each; a network tells which layers it has when it is built."""
    layers = [layer for layer, _ in model.channels]
    wrong = []
    if repeated := {layer for layer in layers if layers.count(layer) > 1}:
        wrong.append(f"config.model.channels names {min(repeated)!r:.200} twice")
    for layer, count in model.channels:
        if count < 1:
            wrong.append(f"config.model.channels gives {layer!r:.200} {count} channels; it must have at least 1")
    if model.channels and model.attention != "none":
        wrong.append(
            f"config.model.channels needs config.model.attention='none', not {model.attention!r}, whose layers have "
            "shares of the channels"
        )
    return wrong


def impossible_agnostic(model: Model) -> list[str]:
    """The mistakes in `model.class_agnostic` of one of our networks that reads it, one line each."""
    if model.name in FASTER and model.class_agnostic in ("masks", "both"):
        return [
            f"config.model.class_agnostic={model.class_agnostic!r} is for {', '.join(INSTANCES)}; {model.name} has no "
            "masks, so only 'boxes'"
        ]
    return []


def impossible_bins(model: Model) -> list[str]:
    """The mistake in `model.box_bins` of one of our networks that reads it, as one line."""
    if model.name in YOLO and model.box_bins == 1:
        return ["config.model.box_bins=1 is a single place for a side; set it to 17, or to 0 for one number"]
    return []


def impossible_stages(model: Model) -> list[str]:
    """The mistakes in the options of the stages of one of our networks that has them, one line each."""
    if model.name not in CIFAR_RESNET:
        return []
    wrong = [
        f"config.model.{name}={getattr(model, name)} must have {STAGES[model.name]} numbers, one for each stage"
        for name in STAGED
        if len(getattr(model, name)) not in (0, STAGES[model.name])
    ]
    if list(model.stage_channels) != sorted(model.stage_channels):
        wrong.append(
            f"config.model.stage_channels={model.stage_channels} must not fall: a shortcut adds the channels of the "
            "stage before"
        )
    if even := [side for side in model.stage_kernels if side % 2 == 0]:
        wrong.append(f"config.model.stage_kernels={model.stage_kernels} must be odd sides, unlike {even[0]}")
    return wrong


def impossible_attention(model: Model) -> list[str]:
    """The mistakes in the options of attention of one of our networks that has them, one line each."""
    if model.name not in STAGES:
        return []
    if model.attention == "none":
        set_ = [name for name in ATTENTION if getattr(model, name) != getattr(Model, name)]
        return [f"config.model.{name} has no effect with config.model.attention='none'" for name in set_]
    wrong = []
    if model.attention == "eca" and model.attention_ratio:
        wrong.append("config.model.attention_ratio has no effect with config.model.attention='eca', which has no ratio")
    if model.attention_place in ("inner", "branch") and model.name not in BRANCHED:
        wrong.append(
            f"config.model.attention_place={model.attention_place!r} is for networks of residual blocks; {model.name} "
            "has the places block and stage"
        )
    stages, most = model.attention_stages, STAGES[model.name]
    if list(stages) != sorted({*stages} & {*range(1, most + 1)}):
        wrong.append(
            f"config.model.attention_stages={stages} must be increasing numbers from 1 to {most}, the stages of "
            f"{model.name}"
        )
    return wrong


def only_normalised_convolutions(model: Model) -> bool:
    """Whether a network is known to consist of convolutions with normalisation and one dense layer."""
    if model.attention != "none":
        return False
    if model.name in VGG:
        return model.form == "cifar" and model.head == "linear" and model.batch_norm
    return model.name in NORMALISED
