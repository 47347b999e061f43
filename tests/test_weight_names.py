"""The names and layouts of other libraries: every array of their networks is one of ours, and the way back is exact."""

import gzip
import json
import math
import pathlib

import jax
import numpy as np
import pytest

from jaxcnn import config, models
from jaxcnn.weights import fit, layout

LAYOUTS = json.loads(
    gzip.decompress((pathlib.Path(__file__).parent / "goldens/torchvision_layouts.json.gz").read_bytes())
)


def shapes_of(model: config.Model, outputs: int = 1000, side: int = 224) -> dict[str, tuple[int, ...]]:
    module = models.build(model, config.Norm(), outputs)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), "float32"))
    paths = jax.tree_util.tree_flatten_with_path(shapes)[0]
    return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in paths}


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """An array of this shape whose values tell their places; memory is not touched for large ones."""
    if math.prod(shape) > 10**6:
        return np.broadcast_to(np.float32(0), shape)
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("name", LAYOUTS)
def test_torchvisions_networks_have_these_names_and_shapes(name):
    model = config.Model(name=name.removesuffix("_bn"), form="imagenet", batch_norm=name.endswith("_bn"))
    if not name.startswith(("alexnet", "vgg")):
        model = config.Model(name=name, form="imagenet")
    outputs = 1000
    if name.endswith("rcnn_resnet50_fpn"):
        model, outputs = config.Model(name=name.replace("rcnn_resnet50_fpn", "_rcnn_resnet50")), 90  # and background
    leaves = layout.leaves("torchvision", model, shapes_of(model, outputs))
    written = {
        leaf.theirs[0]: list(layout.to_theirs("torchvision", leaf, numbered(leaf.shape)).shape) for leaf in leaves
    }
    assert written == LAYOUTS[name]
    counted = sum(math.prod(shape) for key, shape in LAYOUTS[name].items() if "running" not in key)
    assert counted == sum(math.prod(leaf.shape) for leaf in leaves if leaf.key.startswith("params"))


@pytest.mark.parametrize(
    ("naming", "fields"),
    [
        ("torchvision", {"name": "vgg11", "form": "imagenet", "batch_norm": False}),
        ("timm", {"name": "vgg11", "form": "imagenet", "batch_norm": False}),
        ("keras", {"name": "vgg16", "form": "imagenet", "batch_norm": False}),
        ("torchvision", {"name": "alexnet", "form": "imagenet", "batch_norm": False}),
        ("timm", {"name": "efficientnet_lite0", "form": "imagenet"}),
        ("timm", {"name": "efficientnet_b0", "form": "imagenet"}),
        ("timm", {"name": "convnext_tiny", "form": "imagenet"}),
        ("torchvision", {"name": "convnext_tiny", "form": "imagenet"}),
        ("torchvision", {"name": "efficientnet_b0", "form": "imagenet"}),
        ("lukemelas", {"name": "efficientnet_lite0", "form": "imagenet"}),
        ("caffe", {"name": "squeezenet1_1", "form": "imagenet"}),
        ("torchvision", {"name": "resnet20"}),
        ("jaxcnn", {"name": "cnn"}),
    ],
)
def test_what_is_written_is_read_again_to_the_bit(naming, fields):
    model = config.Model(width=1 / 32, **fields)
    leaves = layout.leaves(naming, model, shapes_of(model, 5, 64))
    names = [leaf.theirs[0] for leaf in leaves]
    assert len(set(names)) == len(names)
    for leaf in leaves:
        value = numbered(leaf.shape)
        written = layout.to_theirs(naming, leaf, value)
        np.testing.assert_array_equal(layout.to_ours(naming, leaf, written), value)


def test_a_dense_layer_that_sees_pixels_reads_them_in_the_order_of_pytorch():
    model = config.Model(name="alexnet", form="imagenet", batch_norm=False, width=1 / 32)
    shapes = {"params/dense1/kernel": (8, 6 * 6 * 8), "params/conv5/kernel": (3, 3, 12, 8)}
    leaf = layout.leaves("torchvision", model, shapes)[0]
    channels = leaf.shape[1] // 36
    theirs = np.zeros((leaf.shape[0], channels, 6, 6), np.float32)
    theirs[3, 2, 1, 4] = 1  # output 3 reads channel 2 of row 1, column 4
    ours = layout.to_ours("torchvision", leaf, theirs.reshape(len(theirs), -1))
    assert ours.reshape(-1, 6, 6, channels)[3, 1, 4, 2] == 1 and ours.sum() == 1


@pytest.mark.parametrize("naming", ["torchvision", "jaxcnn"])
def test_a_detector_starts_from_a_network_for_classification_with_its_backbone(naming):
    detector = config.Model(name="yolo_resnet18", width=1 / 32)
    whole = config.Model(name="resnet18", form="imagenet", width=1 / 32)
    shapes = shapes_of(whole, 5, 64)
    there = {key: numbered(shape) for key, shape in shapes.items()}
    file = {
        leaf.theirs[0]: layout.to_theirs(naming, leaf, there[leaf.key]) for leaf in layout.leaves(naming, whole, shapes)
    }
    initial = {key: np.full(shape, -1, np.float32) for key, shape in shapes_of(detector, 2, 64).items()}
    fitted = fit.fit(file, detector, initial, source="a file", head="head", classes=("a", "b"))
    assert fitted.naming == naming
    assert fitted.arrays.keys() == {key for key in there if "classifier" not in key}
    for key, value in fitted.arrays.items():
        np.testing.assert_array_equal(value, there[key])
    left = {row.ours for row in fitted.rows if row.status == fit.LEFT_OUT}
    assert left == {"", *initial} - {*fitted.arrays} and any("head/level2_" in key for key in left)
    del file[layout.leaves(naming, whole, shapes)[3].theirs[0]]
    with pytest.raises(config.UserError, match="lacks block1_1/"):
        fit.fit(file, detector, initial, source="a file", head="head")


def test_mask_r_cnn_reads_torchvisions_files_and_its_heads_by_class():
    """Its heads have outputs of classes three times, four of each for the boxes, and the background is the first."""
    model = config.Model(name="mask_rcnn_resnet18", width=1 / 32)
    there, here = ({key: np.zeros(shape, np.float32) for key, shape in shapes_of(model, k, 64).items()} for k in (3, 2))
    leaves = layout.leaves("torchvision", model, {key: value.shape for key, value in there.items()})
    random = np.random.default_rng(0)
    ours = {key: random.normal(size=value.shape).astype(np.float32) for key, value in there.items()}
    file = {
        leaf.theirs[-1]: layout.to_theirs("torchvision", leaf, ours[leaf.key]) for leaf in leaves
    }  # the older names
    assert "backbone.fpn.inner_blocks.0.weight" in file and "roi_heads.mask_head.mask_fcn4.bias" in file
    assert file["roi_heads.mask_predictor.conv5_mask.weight"].shape == (8, 8, 2, 2)
    same = fit.fit(file, model, there, source="x", head="box_logits", classes=("a", "b", "c"))
    assert all((same.arrays[key] == value).all() for key, value in ours.items())
    options = {"source": "x", "head": "box_logits", "classes": ("c", "d"), "given_classes": ("a", "b", "c")}
    made = fit.fit(file, model, here, **options).arrays
    for key, of_class in (("box_logits", 1), ("box_boxes", 4)):
        kernel, given = made[f"params/{key}/kernel"], ours[f"params/{key}/kernel"]
        assert (kernel[: 2 * of_class] == np.concatenate([given[:of_class], given[3 * of_class :]])).all()
        assert (kernel[2 * of_class :] == 0).all()  # class d is new
    assert (made["params/mask_logits/bias"] == [*ours["params/mask_logits/bias"][[0, 3]], 0]).all()
    unnamed = fit.fit(file, model, here, source="x", head="box_logits", classes=("c", "d"))
    told = {row.ours: row.why for row in unnamed.rows if row.status == fit.LEFT_OUT}
    assert told["params/box_boxes/kernel"] == "3 classes without names, not 2: a new head" and len(told) == 6
