"""Mask R-CNN and Faster R-CNN beside torchvision's in float64: RoIAlign, proposals, finds, losses, gradients."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var
from jax.interpreters.partial_eval import dce_jaxpr

from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.data import boxes as data_boxes
from jaxcnn.data import instance_masks
from jaxcnn.models import faster_rcnn, roi_align
from jaxcnn.models.faster_rcnn import FasterRCNN, Numbers
from jaxcnn.models.mask_rcnn import MaskRCNN
from jaxcnn.tasks import instances, proposals, run_length, two_stage
from jaxcnn.tasks.anchors import anchors
from jaxcnn.tasks.box_records import MASK, MASK_BOX, ON_HOST
from jaxcnn.tasks.suppression import Rule
from jaxcnn.weights import layout
from tests import mask_rcnn_case as case

pytestmark = pytest.mark.unoptimised
GOLDENS = np.load(pathlib.Path(__file__).parent / "goldens" / "mask_rcnn_goldens.npz")
SIDES = (case.SIDE, case.SIDE)
LOSSES = ("anchor_class", "anchor_box", "class", "box", "mask")
# Both sides compute in float64, sums of at most some thousands of terms of about 1, so they agree to about 1e-12.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def nested(flat):
    tree: dict = {}
    for path, array in flat.items():
        *modules, name = path.split("/")
        inner = tree
        for each in modules:
            inner = inner.setdefault(each, {})
        inner[name] = jnp.asarray(array)
    return tree


def padded_target(most=5):
    """The objects of the case as columns of records, with places that are empty."""
    boxes, labels, masks = case.objects()
    grids, places = zip(*(instance_masks.crop(mask, case.GRID) for mask in masks), strict=True)
    objects = data_boxes.Objects(
        boxes.astype(np.float64), labels, np.zeros(len(labels), bool), data_boxes.areas(boxes.astype(np.float64))
    )
    outlines = tuple(run_length.encode(mask)["counts"] for mask in masks)
    crops = data_boxes.Crops(np.array(grids), np.array(places), outlines, masks[0].shape)
    rows = data_boxes.records([objects], data_boxes.WHOLE[None], [crops])
    target = instances.Instances(case.CLASSES, most, case.GRID).read(rows, "the case", "train")
    return {name: jnp.asarray(column) for name, column in target.items() if name not in ON_HOST}


def everything_of(kind, parts_of):
    """A function of parameters, and parameters: what our network answers after training and in it, for one image.

    In training these are its losses, and the gradients of their sum with and, if it has masks, without that of masks.

    Args:
      kind: class of the network.
      parts_of: its losses, of the answer and the target of an image.
    """
    numbers = Numbers(case.SIZES, (case.BEFORE,) * 2, (case.PROPOSALS,) * 2, case.JUDGED, case.TAKEN)
    network = kind(
        configs.Model(name="mask_rcnn_cnn", width=case.CHANNELS / faster_rcnn.CHANNELS),
        configs.Norm(),
        case.CLASSES,
        None,
        jnp.float64,
        case.FOUND,
        Rule(0.5),
        numbers,
    )
    masks = kind is MaskRCNN
    params = nested({path: array for path, array in case.weights().items() if masks or "mask" not in path})
    ones, zeros = jnp.ones(case.CHANNELS), jnp.zeros(case.CHANNELS)
    stats = {f"conv{n}": {"bn": {"mean": zeros, "var": ones}} for n in range(1, 6)}
    image, target = jnp.asarray(case.image())[None], padded_target()

    def losses(params):
        answer, _ = network.apply(
            {"params": params, "batch_stats": stats},
            image,
            positions=jnp.zeros(1, jnp.int32),
            train=True,
            target=target,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        parts = parts_of(*jax.tree.map(lambda x: x[0], (answer, target)))
        return jnp.stack(list(parts.values())), parts

    def trained(params):
        _, back, parts = jax.vjp(losses, params, has_aux=True)
        shares = jnp.array([[1.0] * 5, [1.0] * 4 + [0.0]])
        return parts, jax.vmap(lambda share: back(share)[0])(shares) if masks else None

    def after(params):
        answer = network.apply({"params": params, "batch_stats": stats}, image)
        return jax.tree.map(lambda x: x[0], answer)

    return trained, after, params


@pytest.fixture
def float64():
    """Where torchvision draws at random, the first ones are taken."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(faster_rcnn, "random_order", lambda keys, count: jnp.tile(jnp.arange(count, dtype=float), (1, 1)))
        yield


def of_masks(answer, target):
    return instances.parts(answer, target, SIDES)


@pytest.fixture(scope="module")
def compared():
    """The answer of Mask R-CNN after training, the losses, and both gradients."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(faster_rcnn, "random_order", lambda keys, count: jnp.tile(jnp.arange(count, dtype=float), (1, 1)))
        trained, after, params = everything_of(MaskRCNN, of_masks)
        parts, gradients = jax.jit(trained)(params)
        return jax.device_get((jax.jit(after)(params), parts, gradients))


def test_roi_align_and_its_gradient_are_those_of_torchvision_at_every_level():
    with jax.enable_x64(True):
        maps = [jnp.asarray(each) for each in case.pyramid()]

        def squares(maps):
            made = roi_align.roi_align(maps, jnp.asarray(case.regions()), 7)
            return (made**2).sum(), made

        (_, made), gradient = jax.jit(jax.value_and_grad(squares, has_aux=True))(maps)
        np.testing.assert_allclose(made.transpose(0, 3, 1, 2), GOLDENS["aligned"], **CLOSE)
        along = np.random.default_rng(8)
        for level, each in enumerate(gradient):
            length = float(GOLDENS[f"aligned_length{level}"])
            assert length > 1 and np.linalg.norm(each) == pytest.approx(length, rel=1e-9)
            projected = (each * along.normal(size=each.shape)).sum()
            assert projected == pytest.approx(float(GOLDENS[f"aligned_along{level}"]), abs=1e-9 * length)


def test_what_lies_a_pixel_beyond_a_map_is_0_and_its_border_holds_until_there():
    maps = [jnp.ones((4, 4, 1))]
    inside, outside = roi_align.roi_align(maps, jnp.array([[-3.0, -3, 15, 15], [40, 40, 60, 60]]), 2)
    np.testing.assert_allclose(inside, 1.0, rtol=1e-6)
    assert not outside.any()


@pytest.mark.parametrize("sides", [(512, 500), (300, 33), (96, 800), (31, 1)])
def test_anchors_of_an_image_of_any_size_lie_where_their_maps_have_been_read(sides):
    maps, rest = [], sides
    for level in range(7):
        if level > 1:
            maps.append(rest)
        rest = tuple(-(-side // 2) for side in rest)
    for level, (made, (height, width)) in enumerate(zip(anchors(sides, maps, case.SIZES), maps, strict=True)):
        assert len(made) == 3 * height * width
        centres = (made[::3, :2] + made[::3, 2:]).reshape(height, width, 2) / 2
        rows, columns = np.mgrid[:height, :width]
        if level < 4:
            assert np.array_equal(centres, np.stack([columns, rows], axis=2) * 4 * 2**level)
        else:  # torchvision's: the padded sides by the places of their maps
            steps = [-(-side // 32) * 32 // -(-side // 64) for side in sides[::-1]]
            assert np.array_equal(centres, np.stack([columns, rows], axis=2) * steps)


def test_a_box_reads_the_places_under_it_in_an_image_of_any_size():
    # Maps of an image of 33 pixels, which hold the places of their own points; 3 of 33 is nearer to 1/8 than to 1/16.
    maps = [np.mgrid[:n, :n].transpose(1, 2, 0) * 4.0 * 2**level for level, n in enumerate((9, 5, 3, 2))]
    box = jnp.array([[0.0, 0, 32, 32]])
    for level in range(4):
        only = [jnp.asarray(each if k == level else 0 * each) for k, each in enumerate(maps)]
        read = roi_align._read_levels(only, box, jnp.array([level]), roi_align._scales(4, float), 1)
        np.testing.assert_allclose(read[0, 0, 0], [16, 16], atol=1e-4)


def test_proposals_and_what_is_found_are_those_of_torchvision(compared):
    after, _, _ = compared
    assert after["valid"].sum() == len(GOLDENS["proposals"])
    np.testing.assert_allclose(after["boxes"][after["valid"]], GOLDENS["proposals"], **CLOSE)
    there = after["scores"] > 0
    assert there.sum() == len(GOLDENS["scores"]) > 3
    np.testing.assert_allclose(after["scores"][there], GOLDENS["scores"], **CLOSE)
    np.testing.assert_allclose(after["found"][there], GOLDENS["boxes"], **CLOSE)
    assert (after["label"][there] + 1).tolist() == GOLDENS["labels"].tolist()
    np.testing.assert_allclose(after["masks"][:3], GOLDENS["masks"], **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_an_image_are_those_of_torchvision(compared, name):
    # torchvision's labels of anchors are float32, and so is this loss of it.
    close = 2.0**-23 if name == "anchor_class" else 1e-9
    assert compared[1][name] == pytest.approx(float(GOLDENS[f"loss_{name}"]), rel=close)
    assert compared[1][name] > 0


def check_gradients(gradients, number, before, paths):
    """Hold gradients against those of torchvision by their lengths and along a direction."""
    for path in paths:
        gradient = gradients
        for name in path.split("/"):
            gradient = gradient[name]
        gradient, length = gradient[number], float(GOLDENS[f"{before}length_{path}"])
        assert np.linalg.norm(gradient) == pytest.approx(length, rel=1e-7, abs=1e-12), path
        # The projection may be small beside the length, so the bound is a share of the latter.
        along = (gradient * case.directions()[path]).sum()
        assert along == pytest.approx(float(GOLDENS[f"{before}along_{path}"]), abs=1e-7 * length), path


def test_the_gradients_of_all_parameters_are_those_of_torchvision(compared):
    check_gradients(compared[2], 0, "", case.shapes())
    assert set(GOLDENS) >= {f"along_{path}" for path in case.shapes()}


def test_the_gradients_of_the_losses_of_boxes_are_those_of_torchvision(compared):
    paths = [path for path in case.shapes() if "mask" not in path]
    assert sorted(paths) == sorted(name.removeprefix("boxes_along_") for name in GOLDENS if "boxes_along_" in name)
    check_gradients(compared[2], 1, "boxes_", paths)
    assert not compared[2]["mask_conv1"]["kernel"][1].any()


def test_faster_r_cnn_is_mask_r_cnn_without_masks_operation_by_operation(float64):
    def operations(kind, parts_of):
        found = []
        trained, after, params = everything_of(kind, parts_of)
        for function in (lambda params: trained(params)[0], after):
            traced, shapes = jax.make_jaxpr(function, return_shape=True)(params)
            wanted = [name != "mask" and name != "masks" for name in shapes]
            kept = dce_jaxpr(traced.jaxpr, wanted)[0]
            read = {each for equation in kept.eqns for each in equation.invars if isinstance(each, Var)}
            constants = {each: value for each, value in zip(kept.constvars, traced.consts, strict=True) if each in read}
            found.append((str(kept.replace(constvars=list(constants))), list(constants.values())))
        return found

    faster, mask = operations(FasterRCNN, two_stage.parts), operations(MaskRCNN, of_masks)
    for (text, constants), (other, others) in zip(faster, mask, strict=True):
        assert len(text) > 10**5 and text == other
        assert all(np.array_equal(*pair) for pair in zip(constants, others, strict=True))


def test_a_box_and_a_mask_for_all_classes_are_those_that_are_equal_for_each_class():
    with jax.enable_x64(True):
        random, (count, classes, cells) = np.random.default_rng(5), (6, case.CLASSES, 28)
        target = {name: each[0] for name, each in padded_target().items()}
        corners = np.sort(random.uniform(0, case.SIDE, (count, 2, 2)), axis=1)
        answer = {
            "anchors": jnp.array([[0, 0, 16, 16], [8, 8, 40, 40]], float),
            "anchor_logits": jnp.zeros(2),
            "anchor_told": jnp.ones((2, 4)),
            "boxes": jnp.asarray(corners.reshape(count, 4)),
            "valid": jnp.ones(count, bool),
            "logits": jnp.asarray(random.normal(size=(count, classes + 1))),
            "told": jnp.asarray(random.normal(size=(count, 1, 4))),
        }
        answer = two_stage.judged(answer, target)
        answer |= {"true": jnp.arange(count) % 3, "positive": jnp.arange(count) < 4}
        answer["masks"] = jnp.asarray(random.normal(size=(count, cells, cells, 1)))

        def repeated(answer):
            return answer | {
                "told": answer["told"].repeat(classes + 1, axis=1),
                "masks": answer["masks"].repeat(classes + 1, axis=-1),
            }

        @jax.jit
        def everything(learnt):
            made = []
            for change in (lambda answer: answer, repeated):

                def loss(learnt, change=change):
                    parts = instances.parts(change(answer | learnt), target, SIDES)
                    return sum(parts.values()), parts

                slope, parts = jax.grad(loss, has_aux=True)(learnt)
                each = change(answer | learnt)
                given = proposals.Proposals(each["boxes"], each["valid"])
                ends = proposals.found(given, each["logits"], each["told"], SIDES, 8, Rule(0.5))
                made.append((parts, slope, ends))
            return made

        one, other = everything({name: answer[name] for name in ("told", "masks")})
        assert one[0]["mask"] > 0 and one[0]["box"] > 0 and one[2].scores[2] > 0
        assert all(slope.any() for slope in one[1].values())
        # The gradient of what is repeated is the sum of those of its copies, of which all but one are 0.
        for mine, repeats in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            # Sums of at most 28 * 28 terms of about 1 in float64, in one program and perhaps in another order.
            np.testing.assert_allclose(mine, repeats, rtol=1e-12, atol=28 * 28 * 2**-52)


def test_layers_for_all_classes_have_the_outputs_of_one_and_are_read_whole_from_files_of_other_classes():
    def shapes(agnostic, outputs):
        model = configs.Model(name="mask_rcnn_cnn", width=1 / 32, class_agnostic=agnostic)
        network = models.build(model, configs.Norm(), outputs)
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
        params = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
        return model, {f"params/{name}/kernel": params[name]["kernel"].shape for name in ("box_boxes", "mask_logits")}

    for agnostic, wanted in {"none": (12, 3), "boxes": (4, 3), "masks": (12, 1), "both": (4, 1)}.items():
        model, kernels = shapes(agnostic, 2)
        assert (kernels["params/box_boxes/kernel"][0], kernels["params/mask_logits/kernel"][-1]) == wanted
        leaves = {leaf.key: leaf for leaf in layout.leaves("jaxcnn", model, kernels)}
        assert leaves["params/box_boxes/kernel"].is_head == (wanted[0] > 4)
        assert leaves["params/mask_logits/kernel"].is_head == (wanted[1] > 1)
    faster = configs.to_dict(configs.Config())
    faster["model"] |= {"name": "faster_rcnn_cnn", "class_agnostic": "both"}
    faster["task"] |= {"name": "detection"}
    with pytest.raises(configs.ConfigError, match="faster_rcnn_cnn has no masks, so only 'boxes'"):
        configs.from_config_dict(faster)


def test_an_image_without_objects_has_a_loss_of_its_background_alone():
    with jax.enable_x64(False):
        target = jax.tree.map(jnp.zeros_like, {name: each[0] for name, each in padded_target().items()})
        answer = {
            "anchors": jnp.array([[0, 0, 16, 16], [8, 8, 40, 40]], jnp.float32),
            "anchor_logits": jnp.zeros(2),
            "anchor_told": jnp.ones((2, 4)),
            "boxes": jnp.array([[1, 2, 30, 40]], jnp.float32),
            "valid": jnp.ones(1, bool),
            "logits": jnp.zeros((1, case.CLASSES + 1)),
            "told": jnp.ones((1, case.CLASSES + 1, 4)),
        }
        parts = instances.parts(two_stage.judged(answer, target), target, SIDES)
        assert parts["anchor_class"] == pytest.approx(np.log(2), rel=1e-6)
        assert parts["class"] == pytest.approx(np.log(3), rel=1e-6)
        assert parts["anchor_box"] == parts["box"] == 0
        crowd = target | {
            "boxes": target["boxes"].at[0].set(jnp.array([0, 0, 64, 64.0])),
            "valid": target["valid"].at[0].set(True),
            "crowd": target["crowd"].at[0].set(True),
        }
        within = instances.parts(two_stage.judged(answer, crowd), crowd, SIDES)
        assert within["anchor_class"] == within["class"] == 0


def test_true_masks_within_boxes_of_mirrored_images_are_mirrored():
    target = {name: each[0] for name, each in padded_target().items()}
    boxes, true = target["boxes"][:3], jnp.arange(3)
    # Half a pixel apart, since the centre of the first pixel is at 0 here, at 1/2 in an image.
    plain = instances.masks_of(boxes - 0.5, true, target, (1000, 1000))
    place = target[MASK_BOX] * jnp.array([-1, 1, -1, 1]) + jnp.array([case.SIDE, 0, case.SIDE, 0])
    mirrored = boxes[:, jnp.array([2, 1, 0, 3])] * jnp.array([-1, 1, -1, 1]) + jnp.array([case.SIDE, 0, case.SIDE, 0])
    other = instances.masks_of(mirrored - 0.5, true, target | {MASK_BOX: place}, (1000, 1000))
    np.testing.assert_allclose(other, plain[:, :, ::-1], atol=1e-5)  # float32, weights of about 1
    assert target[MASK].dtype == jnp.uint8 and 0.3 < float(plain.mean()) < 0.9
