"""Segmentation: maps move with images, losses and figures are those of closed forms, sources give a class per pixel."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import augment, boxes, label_maps, memory
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import run_length
from jaxcnn.tasks.regions import Overlaps, Regions, label_map
from jaxcnn.tasks.segmentation import VOID, LabelMaps, PixelCrossEntropy

TASK = configs.Task(name="segmentation")
SIDES = (24, 40)  # height, width
NO_SMOOTHING = {"label_smoothing": jnp.zeros(())}


@pytest.mark.parametrize(
    "moves",
    [
        {"crop": "zero", "crop_padding": 9, "flip": "random"},
        {"zoom": 0.5},
        {"zoom": 0.4, "crop": "zero", "crop_padding": 5, "flip": "alternating"},
    ],
)
def test_a_map_moves_with_its_image_to_the_pixel(moves):
    config = configs.Augment(normalize=False, **moves)
    maps = np.random.default_rng(0).integers(0, 200, (16, *SIDES), np.uint8)
    number = jnp.arange(16, dtype=jnp.int32)
    batch = Batch(jnp.asarray(maps + 1)[..., None], jnp.asarray(maps), number, number, jnp.ones(16, bool))
    key = jax.random.key(1)
    made = augment.augment(
        config, LabelMaps(200, SIDES), batch, key, jnp.zeros(1), jnp.ones(1), run_key=key, epoch=number
    )
    seen = np.rint(np.asarray(made.image)[..., 0] * 255).astype(int)  # the class plus 1; 0 beyond the image
    target = np.asarray(made.target).astype(int)
    assert np.array_equal(np.where(seen == 0, VOID, seen - 1), target)
    assert (target == VOID).any() and not np.array_equal(target, maps)


def test_the_loss_is_the_mean_cross_entropy_of_the_pixels_that_have_a_class():
    generator = np.random.default_rng(1)
    logits, target = generator.normal(size=(3, 5, 7, 4)), generator.integers(0, 4, (3, 5, 7)).astype(np.uint8)
    target[0, :3], target[2] = VOID, VOID
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    own = np.take_along_axis(probability, np.minimum(target, 3)[..., None].astype(int), axis=-1)[..., 0]
    there = target != VOID
    wanted = [-np.log(own[k][there[k]]).mean() if there[k].any() else 0.0 for k in range(3)]
    loss = PixelCrossEntropy(4)
    found = loss.losses(jnp.asarray(logits, jnp.float32), target, NO_SMOOTHING, None, None)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    weighted = PixelCrossEntropy(4, weighted=True)
    constants = Constants(None, None, {"class_weights": jnp.full(4, 2.0)})
    found = weighted.losses(jnp.asarray(logits, jnp.float32), target, NO_SMOOTHING, constants, None)
    np.testing.assert_allclose(found, 2 * np.array(wanted), rtol=1e-6)
    by_pixels = weighted.constants(configs.Task(name="segmentation", class_weights="auto"), "abcd", {}, target)
    pixels = np.bincount(target[there], minlength=4)
    np.testing.assert_allclose(by_pixels["class_weights"] * pixels, (by_pixels["class_weights"] * pixels)[0], rtol=1e-6)


def test_dice_is_that_of_the_closed_form_and_void_pixels_have_no_gradient():
    target = np.zeros((1, 2, 4), np.uint8)
    target[0, 0, :2], target[0, 1, 3] = 1, VOID
    loss = PixelCrossEntropy(3, dice=True)
    settings = NO_SMOOTHING | {"dice_share": jnp.float32(1.0)}

    def value(logits):
        return loss.losses(logits, target, settings, None, None).sum()

    even = jnp.zeros((1, 2, 4, 3))
    # Probabilities of 1/3 at 7 pixels; classes 0 (5 pixels) and 1 (2) are there: 2 (n / 3) / (7 / 9 + n) for each.
    assert float(value(even)) == pytest.approx(1 - (10 / 3 / (7 / 9 + 5) + 4 / 3 / (7 / 9 + 2)) / 2, rel=1e-6)
    sure = 40.0 * jax.nn.one_hot(target, 3)
    assert float(value(sure)) == pytest.approx(0, abs=1e-6)
    gradient = np.asarray(jax.grad(value)(even))
    assert not gradient[0, 1, 3].any() and gradient[0, 0, 0].any()


def test_figures_are_those_of_scikit_learn_over_all_pixels_with_a_class():
    generator = np.random.default_rng(2)
    true, found = (generator.integers(0, 4, (6, 9, 11)).astype(np.uint8) for _ in range(2))
    true[true == 3] = VOID  # class 3 has no pixel, but is found
    collector = Overlaps()
    for part in (slice(0, 4), slice(4, 6)):
        collector.add(found[part], true[part])
    figures = collector.figures(("a", "b", "c", "d"), {})
    there = true != VOID
    for name, score in (("iou", sklearn.metrics.jaccard_score), ("dice", sklearn.metrics.f1_score)):
        wanted = score(true[there], found[there], labels=[0, 1, 2], average=None)
        of_classes = figures[f"{name}_by_class"]
        assert of_classes["d"] is None
        np.testing.assert_allclose([of_classes[each] for each in "abc"], wanted, rtol=1e-12)
        assert figures[f"mean_{name}"] == pytest.approx(wanted.mean(), rel=1e-12)
    assert figures["overall_accuracy"] == pytest.approx((true == found)[there].mean(), rel=1e-12)
    matrix = sklearn.metrics.confusion_matrix(true[there], found[there], labels=range(4))
    assert figures["confusion_matrix"] == matrix.tolist()
    assert Overlaps().figures(("a", "b"), {})["mean_iou"] == 0.0


def test_answers_return_to_the_pixels_of_the_stored_image():
    stored = np.random.default_rng(3).integers(0, 3, (20, 30)).astype(np.uint8)
    large = stored.repeat(2, axis=0).repeat(2, axis=1)  # 40 x 60; its 60-pixel square by "pad" is the same at scale 1
    frame = boxes.frame_of(40, 60, 60, "pad")
    fitted = label_maps.fitted(large, frame, 60)
    assert (fitted[:10] == VOID).all() and (fitted[50:] == VOID).all() and np.array_equal(fitted[10:50], large)
    (answer,) = Regions().answers(np.where(fitted == VOID, 0, fitted)[None], ("a", "b", "c"), None, {})
    back = Regions().in_stored(answer, frame, (40, 60))
    assert np.array_equal(label_map(back), large)
    half = Regions().in_stored(answer, boxes.frame_of(20, 30, 60, "pad"), (20, 30))
    assert np.array_equal(label_map(half), stored)
    assert sum(each["area"] for each in half["regions"]) == 600
    assert Regions().in_words(half).count("%") == 3


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_fitted_map_lies_where_its_image_does(fit, tmp_path):
    height, width, size = 30, 50, 25
    half = np.zeros((height, width, 3), np.uint8)
    half[:, width // 2 :], half[: height // 2, :] = 255, 255
    Image.fromarray(half).save(tmp_path / "a.png")
    from jaxcnn.data.decode import decode

    image = decode((tmp_path / "a.png").read_bytes(), size, 3, fit=fit)[..., 0]
    found = label_maps.fitted(half[..., 0] // 255, boxes.frame_of(height, width, size, fit), size)
    sure = (found != VOID) & ((image < 20) | (image > 235))  # not the border between dark and bright, nor bars
    assert sure.mean() > 0.5 and np.array_equal(image[sure] > 128, found[sure] == 1)


def masks(folder, values=(0, 1, 2), suffix=""):
    """Three images of 16 x 24 pixels and their maps, in train and val."""
    generator = np.random.default_rng(4)
    for split, count in (("train", 3), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (16, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / "images" / f"{number}.png")
            found = np.array(values, np.uint8)[generator.integers(0, len(values), (16, 24))]
            Image.fromarray(found).save(folder / split / "masks" / f"{number}{suffix}.png")
    return configs.Data(source=f"masks:{folder}", test_split="")


def test_folders_of_maps_are_read_in_both_layouts_with_names_and_void(tmp_path):
    data = masks(tmp_path / "one", (0, 2, VOID), "_mask")
    splits = open_splits(data, TASK)
    assert splits.class_names == ("0", "1", "2") and len(splits.train) == 3 and len(splits.val) == 2
    assert {*np.unique(splits.train.targets)} == {0, 2, VOID} and splits.train.targets.shape == (3, 16, 24)
    assert any("has no examples of" in note for note in splits.notes)
    (tmp_path / "one" / "classes.txt").write_text("sky\ntree\n\nroad\nwater\n")
    assert open_splits(data, TASK).class_names == ("sky", "tree", "road", "water")
    other = tmp_path / "other"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (other / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "one" / split / kind).rename(other / kind / split)
    again = open_splits(configs.Data(source=f"masks:{other}", test_split=""), TASK)
    orders = [sorted(each.val.targets.tolist()) for each in (again, splits)]  # images are ordered by their paths
    assert orders[0] == orders[1]
    fitted = open_splits(configs.Data(source=f"masks:{other}", test_split="", image_size=8, resize="pad"), TASK)
    assert fitted.train.targets.shape == (3, 8, 8) and fitted.train.image_shape == (8, 8, 3)


def test_a_map_of_0_and_255_has_two_classes(tmp_path):
    splits = open_splits(masks(tmp_path, (0, 255)), TASK)
    assert splits.class_names == ("0", "1") and {*np.unique(splits.train.targets)} == {0, 1}
    assert any("255 counts as class 1" in note for note in splits.notes)


def colour(path):
    Image.open(path).convert("RGB").save(path)


def small(path):
    Image.new("L", (5, 5)).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (colour, "has colours; save the numbers"),
        (small, "is 5x5, but its image is 16x24"),
        (cut, "cannot be read"),
        (lambda path: path.unlink(), "has no map in"),
    ],
)
def test_a_wrong_map_is_told_in_one_line(tmp_path, spoil, message):
    data = masks(tmp_path)
    spoil(tmp_path / "train" / "masks" / "1.png")
    with pytest.raises(UserError, match=message):
        open_splits(data, TASK)


def test_a_folder_without_images_is_told_in_one_line(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    with pytest.raises(UserError, match="has no images"):
        open_splits(configs.Data(source=f"masks:{tmp_path}", test_split=""), TASK)


def test_outlines_are_painted_as_coco_fills_them_the_smaller_over_the_larger(tmp_path):
    square, triangle = [[2, 2, 10, 2, 10, 10, 2, 10]], [[4, 4, 8, 4, 4, 8]]
    ring = np.ones((12, 16), np.uint8)
    ring[3:9, 3:13] = 0
    Image.new("RGB", (16, 12)).save(tmp_path / "a.png")
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 7, "segmentation": triangle, "area": 8, "bbox": [4, 4, 4, 4]},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": square, "area": 64, "bbox": [2, 2, 8, 8]},
        {"id": 3, "image_id": 1, "category_id": 7, "segmentation": run_length.encode(ring), "bbox": [0, 0, 16, 12]},
    ]
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}],
        "categories": [{"id": 3, "name": "square"}, {"id": 7, "name": "other"}],
        "annotations": annotations,
    }
    (tmp_path / "instances.json").write_text(json.dumps(tree))
    data = configs.Data(source=f"coco:{tmp_path}", test_split="", protocol="full", train_split="train")
    splits = open_splits(data, TASK)
    assert splits.class_names == ("background", "square", "other")
    wanted = np.where(ring == 1, 2, 0)
    wanted[2:10, 2:10] = 1
    inside = np.add.outer(np.arange(4, 8), np.arange(4, 8))
    found = splits.train.targets[0]
    assert np.array_equal(found[2:4], wanted[2:4]) and np.array_equal(found[9:], wanted[9:])
    assert (found[4:8, 4:8][inside < 11] == 2).all() and (found[4:8, 4:8][inside > 12] == 1).all()
    annotations[0]["segmentation"] = []
    (tmp_path / "instances.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="cannot be painted: it has no segmentation"):
        open_splits(data, TASK)


def test_arrays_and_npz_have_a_class_for_each_pixel(tmp_path):
    images = np.zeros((4, 8, 10, 3), np.uint8)
    maps = np.arange(320).reshape(4, 8, 10) % 3
    given = memory.give((images, maps))
    splits = open_splits(configs.Data(source=given.source, test_split="", val_examples=1), TASK)
    assert splits.class_names == ("0", "1", "2") and splits.train.targets.dtype == np.uint8
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=maps[:, :4])
    with pytest.raises(UserError, match="label maps are 4x10, but images are 8x10"):
        open_splits(configs.Data(source=f"npz:{tmp_path / 'a.npz'}", test_split="", val_examples=1), TASK)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=maps)
    with pytest.raises(UserError, match=r"set config\.task\.name='segmentation'"):
        open_splits(configs.Data(source=f"npz:{tmp_path / 'a.npz'}", test_split=""), configs.Task())
    with pytest.raises(UserError, match="row 1, column 2 of the map at index 0 has class 9, but there are 3"):
        LabelMaps(3, (8, 10)).read(np.where(np.arange(320).reshape(4, 8, 10) == 12, 9, maps), "a set", "train")


def test_networks_answer_at_each_pixel_of_any_size_and_share_the_names_of_their_backbone():
    def variables(name, side, **options):
        network = models.build(configs.Model(name=name, **options), configs.Norm(), 2)
        made = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *side, 3))))
        answer = jax.eval_shape(lambda made: network.apply(made, jnp.zeros((2, *side, 3))), made)
        return made["params"], answer

    params, answer = variables("unet", (33, 50))
    assert answer.shape == (2, 33, 50, 2) and answer.dtype == jnp.float32
    # Ronneberger et al.'s kernels with 3x3 in place of 2x2 on the way up, and BatchNorm in place of their biases.
    down = sum(9 * (i * o + o * o) for i, o in zip((3, 64, 128, 256, 512), (64, 128, 256, 512, 1024), strict=True))
    up = sum(9 * (2 * o * o + 2 * o * o + o * o) for o in (64, 128, 256, 512))
    scales = 2 * (2 * sum((64, 128, 256, 512, 1024)) + 3 * sum((64, 128, 256, 512)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == down + up + scales + 2 * 64 + 2
    params, answer = variables("unet_small", (7, 9))
    assert answer.shape == (2, 7, 9, 2) and "down3_2" in params and "down4_1" not in params
    for name in ("resnet18", "resnet50"):
        params, answer = variables(f"unet_{name}", (33, 50), width=1 / 8)
        whole, _ = variables(name, (33, 50), width=1 / 8, form="imagenet")
        assert answer.shape == (2, 33, 50, 2)
        assert {*whole} - {*params} == set() and {*params} - {*whole} == {
            f"up{level}{end}" for level in range(1, 6) for end in ("_1", "_2", *(("_0",) if level > 2 else ()))
        }


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"model": {"name": "resnet18"}}, "needs a network that answers a class for each pixel: unet"),
        ({"augment": {"mixup": 0.2}}, "mixup does not move classes of pixels"),
        ({"augment": {"crop": "reflect"}}, "repeats objects without classes of pixels"),
        ({"run": {"tta": "flip"}}, "config.run.tta is for one answer"),
        ({"task": {"name": "segmentation", "most_boxes": 3}}, "most_boxes is for config.task.name='detection' only"),
        ({"task": {}}, "answers a class for each pixel; set config.task.name='segmentation'"),
        ({"task": {"name": "segmentation", "focal_gamma": 1.0}}, "focal_gamma is for one answer"),
    ],
)
def test_what_makes_no_sense_is_refused(groups, message):
    tree = configs.to_dict(configs.Config())
    tree["model"]["name"], tree["task"]["name"] = "unet", "segmentation"
    tree["augment"] |= {"crop": "none", "flip": "none"}
    for name, group in groups.items():
        tree[name] |= group or configs.to_dict(configs.Config())[name]
    with pytest.raises(ConfigError, match=message):
        configs.from_config_dict(tree)
