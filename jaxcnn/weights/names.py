"""The names that other libraries give to the layers of our networks.

A naming is a mapping from our modules ("block1_1/conv1") to the names of the same modules in a file, several where
files differ; the first is the one that is written.
"""

from collections.abc import Callable, Iterator

from jaxcnn.config import Model
from jaxcnn.config.networks import BACKBONES, CIFAR_RESNET, INVERTED, RESNET, TWO_STAGE, VGG, YOLOX
from jaxcnn.config.networks import SQUEEZENET as SQUEEZENETS

Modules = dict[str, tuple[str, ...]]
_Pairs = Iterator[tuple[str, str | tuple[str, ...]]]


def of(naming: str, model: Model, ours: list[str]) -> Modules | None:
    """The names of our modules in a naming; None if that library has no such network.

    Attention that the library does not have keeps our names, with dots.

    Args:
      naming: one of `NAMINGS`.
      model: the network.
      ours: the paths of its modules that have parameters, in any order.
    """
    find = NAMINGS[naming].get(model.name)
    if find is None:
        return None
    ours = sorted(ours)
    extra = [name for name in ours if "attention" in name]
    plain = [name for name in ours if name not in extra]
    found = {name: (theirs,) if isinstance(theirs, str) else theirs for name, theirs in find(model, plain)}
    found |= {name: (name.replace("/", "."),) for name in extra}
    if naming == "timm" and model.attention == "se" and model.name in RESNET:
        found |= {name: (theirs,) for name, theirs in _timm_se(extra)}
    return {name: found[name] for name in ours} if set(ours) <= set(found) else None


def _same(_: Model, ours: list[str]) -> _Pairs:
    for name in ours:
        yield name, name


def _torch_alexnet(model: Model, _: list[str]) -> _Pairs:
    if model.batch_norm:
        return  # torchvision's has none
    for number, place in enumerate((0, 3, 6, 8, 10), start=1):
        yield f"conv{number}", f"features.{place}"
    yield from {"dense1": "classifier.1", "dense2": "classifier.4", "classifier": "classifier.6"}.items()


def _torch_vgg(model: Model, ours: list[str]) -> _Pairs:
    yield from _vgg_features(model, ours)
    if "dense1" in ours:
        yield from {"dense1": "classifier.0", "dense2": "classifier.3", "classifier": "classifier.6"}.items()
    else:
        yield "classifier", "classifier"


def _timm_vgg(model: Model, ours: list[str]) -> _Pairs:
    yield from _vgg_features(model, ours)
    yield from {"dense1": "pre_logits.fc1", "dense2": "pre_logits.fc2", "classifier": "head.fc"}.items()


def _vgg_features(model: Model, ours: list[str]) -> _Pairs:
    place, block = 0, "block1"
    for name in (each for each in ours if "_conv" in each):
        if not name.startswith(block):
            place, block = place + 1, name.partition("_")[0]  # a max-pool
        yield name, f"features.{place}"
        if model.batch_norm:
            yield name.replace("_conv", "_bn"), f"features.{place + 1}"
        place += 3 if model.batch_norm else 2


def _keras_vgg(model: Model, ours: list[str]) -> _Pairs:
    if not model.batch_norm:
        yield from _same(model, ours)
        yield from {"dense1": "fc1", "dense2": "fc2", "classifier": "predictions"}.items()


def _torch_resnet(model: Model, ours: list[str]) -> _Pairs:
    pooled = model.shortcut == "pooled"  # timm's: the pool is the first module of the shortcut
    if model.stem == "deep":  # timm's: three convolutions in a row, the last BatchNorm after them
        yield from {"stem_conv": "conv1.0", "stem_conv2": "conv1.3", "stem_conv3": "conv1.6"}.items()
        yield from {"stem_bn": "conv1.1", "stem_bn2": "conv1.4", "stem_bn3": "bn1"}.items()
    else:
        yield from {"stem_conv": "conv1", "stem_bn": "bn1"}.items()
    # akamaster's networks for CIFAR end with "linear"
    yield "classifier", ("linear", "fc") if model.name in CIFAR_RESNET else "fc"
    for name in ours:
        block, _, part = name.partition("/")
        if part:
            stage, number = block.removeprefix("block").split("_")
            part = part.replace("shortcut_conv", f"downsample.{int(pooled)}")
            part = part.replace("shortcut_bn", f"downsample.{1 + pooled}")
            yield name, f"layer{stage}.{int(number) - 1}.{part}"


def _torch_two_stage(model: Model, ours: list[str]) -> _Pairs:
    """The names in today's torchvision; its published files have older names, which it converts on loading."""
    for name, theirs in _torch_resnet(model, [each for each in ours if each.startswith("block")]):
        yield name, f"backbone.body.{theirs}"
    for number in range(4):
        for part in ("inner", "layer"):
            place = f"backbone.fpn.{part}_blocks.{number}"
            yield f"pyramid_{'in' if part == 'inner' else 'out'}{number}", (f"{place}.0", place)
        old = f"roi_heads.mask_head.mask_fcn{number + 1}"
        yield f"mask_conv{number + 1}", (f"roi_heads.mask_head.{number}.0", old)
    yield "anchor_conv", ("rpn.head.conv.0.0", "rpn.head.conv")
    yield from {"anchor_logits": "rpn.head.cls_logits", "anchor_boxes": "rpn.head.bbox_pred"}.items()
    box, mask = "roi_heads.box_predictor", "roi_heads.mask_predictor"
    yield from {"box_logits": f"{box}.cls_score", "box_boxes": f"{box}.bbox_pred"}.items()
    yield from {"box_dense1": "roi_heads.box_head.fc6", "box_dense2": "roi_heads.box_head.fc7"}.items()
    yield from {"mask_up": f"{mask}.conv5_mask", "mask_logits": f"{mask}.mask_fcn_logits"}.items()


def _timm_se(ours: list[str]) -> Iterator[tuple[str, str]]:
    for name in ours:
        block, _, part = name.partition("/attention/")
        if part:
            stage, number = block.removeprefix("block").split("_")
            yield name, f"layer{stage}.{int(number) - 1}.se.{'fc1' if part == 'reduce' else 'fc2'}"


def _torch_squeezenet(model: Model, _: list[str]) -> _Pairs:
    yield from {"stem_conv": "features.0", "classifier": "classifier.1"}.items()
    pools = {"squeezenet1_0": (5, 9), "squeezenet1_1": (4, 6)}[model.name]  # fire modules after a max-pool
    place = 3
    for layer in range(2, 10):
        place += layer in pools
        for part in ("squeeze", "expand1x1", "expand3x3"):
            yield f"fire{layer}/{part}", f"features.{place}.{part}"
        place += 1


def _caffe_squeezenet(_: Model, __: list[str]) -> _Pairs:
    yield from {"stem_conv": "conv1", "classifier": "conv10"}.items()
    parts = {"squeeze": ("squeeze1x1", "conv1x1_1"), "expand1x1": ("expand1x1", "conv1x1_2")}
    parts["expand3x3"] = ("expand3x3", "conv3x3_2")
    for layer in range(2, 10):
        for part, theirs in parts.items():
            yield f"fire{layer}/{part}", tuple(f"fire{layer}/{each}" for each in theirs)


def _torch_mobilenet(_: Model, ours: list[str]) -> _Pairs:
    blocks = list(dict.fromkeys(name.partition("/")[0] for name in ours if "/" in name))
    last = len(blocks) + 1
    yield from {"stem_conv": "features.0.0", "stem_bn": "features.0.1"}.items()
    yield from {"last_conv": f"features.{last}.0", "last_bn": f"features.{last}.1"}.items()
    yield "classifier", "classifier.1"
    for number, block in enumerate(blocks, start=1):
        steps = [step for step in ("expand", "depthwise", "project") if f"{block}/{step}_conv" in ours]
        for place, step in enumerate(steps):
            conv = f"{place}.0" if step != "project" else str(place)
            norm = f"{place}.1" if step != "project" else str(place + 1)
            yield f"{block}/{step}_conv", f"features.{number}.conv.{conv}"
            yield f"{block}/{step}_bn", f"features.{number}.conv.{norm}"


def _torch_efficientnet(_: Model, ours: list[str]) -> _Pairs:
    yield from {"stem_conv": "features.0.0", "stem_bn": "features.0.1"}.items()
    yield from {"last_conv": "features.8.0", "last_bn": "features.8.1", "classifier": "classifier.1"}.items()
    for block, theirs, steps in _blocks(ours):
        stage, number = theirs.split(".")
        for place, step in enumerate((*steps[:-1], "se", steps[-1])):
            prefix = f"features.{int(stage) + 1}.{number}.block.{place}"
            if step == "se":
                yield from {f"{block}/se/reduce": f"{prefix}.fc1", f"{block}/se/expand": f"{prefix}.fc2"}.items()
            else:
                yield from {f"{block}/{step}_conv": f"{prefix}.0", f"{block}/{step}_bn": f"{prefix}.1"}.items()


def _torch_convnext(_: Model, ours: list[str]) -> _Pairs:
    yield from {"stem_conv": "features.0.0", "stem_ln": "features.0.1"}.items()
    yield from {"last_ln": "classifier.0", "classifier": "classifier.2"}.items()
    parts = {"depthwise": "block.0", "ln": "block.2", "expand": "block.3", "project": "block.5"}
    for name, stage, block, part in _convnext_stages(ours):
        if block is None:
            yield name, f"features.{2 * stage - 2}.{0 if part == 'ln' else 1}"
        else:
            yield name, f"features.{2 * stage - 1}.{block}.{parts.get(part, part)}"


def _timm_convnext(_: Model, ours: list[str]) -> _Pairs:
    yield from {"stem_conv": "stem.0", "stem_ln": "stem.1", "last_ln": "head.norm", "classifier": "head.fc"}.items()
    parts = {"depthwise": "conv_dw", "ln": "norm", "expand": "mlp.fc1", "project": "mlp.fc2", "layer_scale": "gamma"}
    for name, stage, block, part in _convnext_stages(ours):
        if block is None:
            yield name, f"stages.{stage - 1}.downsample.{0 if part == 'ln' else 1}"
        else:
            yield name, f"stages.{stage - 1}.blocks.{block}.{parts[part]}"


def _convnext_stages(ours: list[str]) -> Iterator[tuple[str, int, int | None, str]]:
    """The modules of our stages: name, stage from 1, block from 0 (None: the downsampling before a stage), and part."""
    for name in ours:
        if name.startswith("down"):
            stage, part = name.removeprefix("down").split("_")
            yield name, int(stage), None, part
        elif "/" in name:
            place, part = name.removeprefix("block").split("/")
            stage, block = place.split("_")
            yield name, int(stage), int(block) - 1, part


def _timm_inverted(_: Model, ours: list[str]) -> _Pairs:
    yield from {"stem_conv": "conv_stem", "stem_bn": "bn1", "last_conv": "conv_head", "last_bn": "bn2"}.items()
    yield "classifier", "classifier"
    for block, theirs, steps in _blocks(ours):
        yield from {f"{block}/se/{part}": f"blocks.{theirs}.se.conv_{part}" for part in ("reduce", "expand")}.items()
        convs = ("conv_pw", "conv_dw", "conv_pwl") if len(steps) == 3 else ("conv_dw", "conv_pw")
        for number, (step, conv) in enumerate(zip(steps, convs, strict=True), start=1):
            yield f"{block}/{step}_conv", f"blocks.{theirs}.{conv}"
            yield f"{block}/{step}_bn", f"blocks.{theirs}.bn{number}"


def _lukemelas(model: Model, ours: list[str]) -> _Pairs:
    yield from {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "last_conv": "_conv_head", "last_bn": "_bn1"}.items()
    yield "classifier", "_fc"
    for number, (block, _, steps) in enumerate(_blocks(ours)):
        for step in steps:
            norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[step]
            yield f"{block}/{step}_conv", f"_blocks.{number}._{step}_conv"
            yield f"{block}/{step}_bn", f"_blocks.{number}.{norm}"


_YOLOX_NECK = {
    **{"neck_in2": "lateral_conv0", "neck_in1": "reduce_conv1", "neck_half1": "bu_conv2", "neck_half2": "bu_conv1"},
    **{"neck_down1": "C3_p4", "neck_down0": "C3_p3", "neck_up1": "C3_n3", "neck_up2": "C3_n4"},
}
_YOLOX_HEAD = {
    **{"stem": "stems", "class_1": "cls_convs", "class_2": "cls_convs", "box_1": "reg_convs", "box_2": "reg_convs"},
    **{"class_out": "cls_preds", "box_out": "reg_preds", "object_out": "obj_preds"},
}


def _yolox(_: Model, ours: list[str]) -> _Pairs:
    """The names of YOLOX: of its backbone, CSPDarknet, and where the network has them, of its neck and head."""
    parts = {"down": "0", "pool": "1"}
    for name in ours:
        block, _slash, rest = name.partition("/")
        stage, part = block.removeprefix("block").partition("_")[::2]
        inner = f"m.{rest[1:].replace('_', '.', 1)}" if rest.startswith("m") else rest  # of a CSP layer
        if block == "stem_conv":
            theirs = f"backbone.backbone.stem.conv.{rest}"
        elif part == "layer":
            theirs = f"backbone.backbone.dark{stage}.{2 if f'block{stage}_pool/conv1/conv' in ours else 1}.{inner}"
        elif part in parts:
            theirs = f"backbone.backbone.dark{stage}.{parts[part]}.{rest}"
        elif block in _YOLOX_NECK:
            theirs = f"backbone.{_YOLOX_NECK[block]}.{inner}"
        elif block == "head":
            place, _slash, rest = rest.partition("/")
            level, part = place.removeprefix("level").split("_", 1)
            number = f".{int(part[-1]) - 1}" if part[-1].isdecimal() else ""
            theirs = f"head.{_YOLOX_HEAD[part]}.{level}{number}.{rest}".removesuffix(".")
        else:
            theirs = name  # the classifier, which a file of a backbone does not have
        yield name, theirs.replace("/", ".") if theirs != name else name


def _blocks(ours: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Each inverted residual block: our name, "stage.number" counted from 0, and the steps that it has."""
    for block in dict.fromkeys(name.partition("/")[0] for name in ours if "/" in name):
        stage, number = (int(each) - 1 for each in block.removeprefix("block").split("_"))
        steps = [step for step in ("expand", "depthwise", "project") if f"{block}/{step}_conv" in ours]
        yield block, f"{stage}.{number}", steps


_Find = Callable[[Model, list[str]], _Pairs]
NAMINGS: dict[str, dict[str, _Find]] = {
    "torchvision": {
        "alexnet": _torch_alexnet,
        "convnext_tiny": _torch_convnext,
        "efficientnet_b0": _torch_efficientnet,
        "mobilenet_v2": _torch_mobilenet,
        **dict.fromkeys(VGG, _torch_vgg),
        **dict.fromkeys((*RESNET, *CIFAR_RESNET), _torch_resnet),
        **dict.fromkeys(SQUEEZENETS, _torch_squeezenet),
        **dict.fromkeys([name for name in TWO_STAGE if name in BACKBONES], _torch_two_stage),
    },
    "timm": {
        **dict.fromkeys(VGG, _timm_vgg),
        **dict.fromkeys(RESNET, _torch_resnet),
        **dict.fromkeys((*INVERTED, "efficientnet_b0"), _timm_inverted),
        "convnext_tiny": _timm_convnext,
    },
    "keras": dict.fromkeys(("vgg16", "vgg19"), _keras_vgg),
    "caffe": dict.fromkeys(SQUEEZENETS, _caffe_squeezenet),
    "lukemelas": {"efficientnet_lite0": _lukemelas},
    "yolox": dict.fromkeys(("csp_s", "csp_m", *YOLOX), _yolox),
}
# Epsilon of BatchNorm of the networks whose published weights were not trained with 1e-5: those of TensorFlow, YOLOX.
EPSILONS = dict.fromkeys(("efficientnet_lite0", "yolo_csp_s", "yolo_csp_m", *YOLOX), 1e-3)
