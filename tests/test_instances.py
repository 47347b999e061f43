"""Instances: masks come from every form of an outline, move with boxes, are pasted and judged as by COCO's own code."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import instance_masks, memory
from jaxcnn.data.selection import whole_targets
from jaxcnn.data.source import open_splits
from jaxcnn.doctor import data as doctor
from jaxcnn.tasks import box_records, by_name, found_instances, kept, run_length
from jaxcnn.tasks.instances import MASK_OUTPUTS, Instances
from jaxcnn.tasks.moving import Move
from jaxcnn.tasks.pasting import from_grid, pasted
from jaxcnn.train import predict

SIDE = 32
TASK = configs.Task(name="instances", most_boxes=4, most_found=8, mask_side=SIDE)
HEIGHT, WIDTH = 40, 60


def ring():
    """A mask with a hole, [40, 60]."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:25, 10:31] = 1
    mask[10:20, 15:26] = 0
    return mask


def coco(root, annotations, height=HEIGHT, width=WIDTH):
    (root / "images").mkdir(parents=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(root / "images" / "a.png")
    tree = {
        "images": [{"id": 0, "file_name": "a.png", "height": height, "width": width}],
        "annotations": [{"id": k, "image_id": 0, "category_id": 1, **each} for k, each in enumerate(annotations)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "instances_train.json").write_text(json.dumps(tree))
    return f"coco:{root / 'instances_train.json'}"


def data(source, **changes):
    return configs.Data(source=source, protocol="full", test_split="", **changes)


def stored_masks(targets, image, sides):
    real = targets["valid"][image]
    return [
        from_grid(bits, box, sides)
        for bits, box in zip(targets["mask"][image][real], targets["mask_box"][image][real], strict=True)
    ]


def test_run_lengths_and_polygons_become_exact_masks_of_small_objects(tmp_path):
    polygon = [[40.0, 2.0, 50.0, 2.0, 50.0, 12.0, 40.0, 12.0]]
    source = coco(
        tmp_path,
        [
            {"bbox": [10, 5, 21, 20], "segmentation": run_length.encode(ring()), "area": int(ring().sum())},
            {"bbox": [40, 2, 10, 10], "segmentation": polygon},
            {"bbox": [0, 0, 5, 5], "segmentation": [], "iscrowd": 1},
        ],
    )
    targets = open_splits(data(source), TASK).train.targets
    one, two, crowd = stored_masks(targets, 0, (HEIGHT, WIDTH))
    assert np.array_equal(one, ring())
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[2:12, 40:50] = True
    assert np.array_equal(two, square)
    filled = np.zeros((HEIGHT, WIDTH), bool)
    filled[:5, :5] = True  # of a crowd without an outline, its box
    assert np.array_equal(crowd, filled) and targets["crowd"][0].tolist() == [False, False, True, False]


def judged_in_a_crowd(crowd):
    """The figures of one object, found with a score of 0.5, and of three found in a crowd, with higher scores."""
    row = np.zeros(1, box_records.record_type(4, SIDE, outlines=True))
    one, many = np.zeros((2, 64, 64), np.uint8)
    one[2:22, 2:22] = many[32:, 32:] = 1
    bits, places = zip(*(instance_masks.crop(mask, SIDE) for mask in (one, many)), strict=True)
    row["boxes"][0, :2], row["area"][0, :2] = [[2, 2, 22, 22], [32, 32, 64, 64]], [400, 1024]
    row["mask"][0, :2], row["mask_box"][0, :2] = bits, places
    row["outline"][0, :2], row["stored"] = [run_length.encode(mask)["counts"] for mask in (one, many)], (64, 64)
    row["valid"][0, :2], row["crowd"][0, 1], row["frame"] = True, crowd, [1, 1, 0, 0]
    found = np.zeros((1, TASK.most_found, 6 + 28 * 28), np.float32)
    found[0, :4, :4] = [[2, 2, 22, 22], [34, 34, 44, 44], [46, 34, 56, 44], [34, 46, 44, 56]]
    found[0, :4, 4], found[0, :4, 6:] = [0.5, 0.9, 0.8, 0.7], 1
    collector = by_name.make(TASK, 1, sides=(64, 64)).evaluation.collector(None)
    collector.add(found, {name: row[name] for name in row.dtype.names})
    return collector.figures(("thing",), collector.fitted())


def test_what_is_found_in_a_crowd_does_not_count_in_the_figures_of_masks():
    figures = judged_in_a_crowd(crowd=True)
    assert figures["mask_ap"] == figures["ap"] == 1.0 and figures["confusion_matrix"] == [[1, 0], [0, 0]]
    assert figures["at_thresholds"]["macro_f1"] == 1.0
    figures = judged_in_a_crowd(crowd=False)  # three false ones before the hit, and an object missed: 51 recalls of 101
    assert figures["mask_ap"] == pytest.approx(51 / 101 / 4) and figures["confusion_matrix"] == [[1, 1], [3, 0]]


def test_a_crowd_keeps_its_outline_and_a_thin_line_keeps_a_cell(tmp_path):
    polygon = [[10.0, 2.0, 50.0, 2.0, 50.0, 12.0, 10.0, 12.0]]
    line = np.eye(200, dtype=np.uint8)  # in every cell it touches, much less than half
    source = coco(
        tmp_path,
        [
            {"bbox": [10, 2, 40, 10], "segmentation": polygon, "iscrowd": 1},
            {"segmentation": run_length.encode(line)},
        ],
        200,
        200,
    )
    crowd, thin = stored_masks(open_splits(data(source), TASK).train.targets, 0, (200, 200))
    assert crowd[2:12, 11:49].all() and crowd.sum() <= 10 * 42 and thin.any()


def test_a_larger_object_fills_its_grid_and_a_resized_image_moves_it(tmp_path):
    mask = np.zeros((120, 100), np.uint8)
    mask[10:106, 20:84] = 1  # 96 x 64 pixels: three and two of them in a cell
    source = coco(tmp_path, [{"segmentation": run_length.encode(mask)}], 120, 100)
    targets = open_splits(data(source), TASK).train.targets
    assert np.array_equal(stored_masks(targets, 0, (120, 100))[0], mask)
    half = open_splits(data(source, image_size=60, resize="pad"), TASK).train.targets
    np.testing.assert_allclose(half["mask_box"][0, 0], half["boxes"][0, 0], atol=1e-5)
    assert from_grid(half["mask"][0, 0], half["mask_box"][0, 0], (60, 60)).sum() == 48 * 32


def test_an_object_without_an_outline_is_refused_or_left_out(tmp_path):
    source = coco(tmp_path, [{"bbox": [1, 1, 9, 9]}, {"bbox": [4, 4, 9, 9], "segmentation": run_length.encode(ring())}])
    with pytest.raises(UserError, match="has no mask: it has no segmentation"):
        _ = open_splits(data(source), TASK).train.targets
    assert open_splits(data(source, on_error="skip"), TASK).train.targets["valid"].sum() == 1


FAR = [[1e9, 1e9, 2e9, 1e9, 2e9, 2e9]]
BAD = [
    ({"segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}, "1000000x1000000, but the image 40x60"),
    ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "no pixel within the image"),
    ({"segmentation": [[61, 1, 70, 1, 70, 9, 61, 9]]}, "no pixel within the image"),
    ({"segmentation": FAR}, "reaches far outside"),
    ({"segmentation": FAR, "iscrowd": 1}, "reaches far outside"),
    ({"segmentation": [[1, 1, float("nan"), 9, 9, 9]]}, "not finite"),
    ({"segmentation": {"size": [40, 60], "counts": "o" * 99}}, "end within a run"),
    ({"segmentation": {"size": [40, 60], "counts": 7}}, "no counts"),
    (
        {"bbox": [5, 5, 10, 10], "segmentation": [[40, 20, 55, 20, 55, 35, 40, 35]]},
        "has an outline outside its box: [40, 20, 55, 35], but the box is [5, 5, 15, 15]",
    ),
    ({"bbox": [35, 5, 10, 10], "segmentation": run_length.encode(ring())}, "outside its box: [10, 5, 31, 25]"),
]


def test_outlines_without_sense_are_named_by_the_doctor_and_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    good = {"bbox": [10, 5, 21, 20], "segmentation": run_length.encode(ring())}
    source = coco(tmp_path, [good, *({"bbox": [1, 1, 8, 8 + k], **change} for k, (change, _) in enumerate(BAD))])
    found = doctor.examine(data(source), TASK)
    (told,) = [each for each in found.results if each.name == "bad annotations"]
    assert (found.exit_code, told.found) == (2, str(len(BAD)))
    for line in {line for _, line in BAD}:
        assert sum(line in each for each in told.examples) == sum(line == other for _, other in BAD), line
    with pytest.raises(UserError, match=f"and {len(BAD) - 1} more"):
        _ = open_splits(data(source), TASK).train.targets
    assert open_splits(data(source, on_error="skip"), TASK).train.targets["valid"].sum() == 1


def test_an_outline_may_be_a_pixel_beside_its_box(tmp_path):
    pixels = np.full((1, HEIGHT, WIDTH, 3), 90, np.uint8)
    masks = [run_length.encode(ring())] * 2
    given = memory.give((pixels, [{"boxes": [[31, 5, 40, 25], [32, 5, 40, 25]], "labels": [0, 0], "masks": masks}]))
    with pytest.raises(UserError, match=r"data\['train'\]\[0\], box 1 has an outline outside its box"):
        open_splits(data(given.source), TASK)
    splits = open_splits(data(given.source, on_error="skip"), TASK)
    assert splits.train.targets["valid"].sum() == 1 and "left out 1 bad annotation" in "".join(splits.notes)
    boxed = open_splits(data(given.source), configs.Task(name="detection", most_boxes=4)).train.targets
    assert boxed["valid"].sum() == 2, "detection asks for no outlines"


def test_polygons_of_yolo_are_masks_of_instances_and_maps_of_segmentation(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(tmp_path / "images" / "train" / "a.png")
    corners = np.array([[40.0, 2.0], [50.0, 2.0], [50.0, 12.0], [40.0, 12.0], [44.0, 7.0]])  # with a notch
    shares = " ".join(map(str, (corners / [WIDTH, HEIGHT]).ravel()))
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"1 {shares}\n0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("names: [one, two]\n")
    source = f"yolo:{tmp_path}"
    file = coco(tmp_path / "coco", [{"bbox": [40, 2, 10, 10], "segmentation": [corners.ravel().tolist()]}])
    with pytest.raises(UserError, match=r"a\.png: an object of class 0 has no mask: it has no segmentation"):
        open_splits(data(source), TASK)
    targets = open_splits(data(source, on_error="skip"), TASK).train.targets
    wanted = open_splits(data(file), TASK).train.targets
    assert targets["valid"].sum() == 1 and targets["label"][0, 0] == 1
    assert np.array_equal(*(stored_masks(each, 0, (HEIGHT, WIDTH))[0] for each in (targets, wanted)))
    assert targets["area"][0, 0] == pytest.approx(100 - 10 * 4 / 2)  # of the polygon, not of its box
    maps = open_splits(data(source, on_error="skip"), configs.Task(name="segmentation"))
    assert maps.class_names == ("background", "one", "two")
    assert np.array_equal(maps.train.targets[0], 2 * stored_masks(wanted, 0, (HEIGHT, WIDTH))[0])
    boxed = open_splits(data(source), configs.Task(name="detection", most_boxes=4)).train.targets
    assert boxed["valid"].sum() == 2 and sorted(boxed["area"][0].tolist())[-2:] == pytest.approx([96, 100])


def test_masks_from_python_are_those_of_a_file_and_boxes_alone_are_refused():
    pixels = np.full((2, HEIGHT, WIDTH, 3), 90, np.uint8)
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[2:12, 40:50] = True
    labels = {"boxes": [[10, 5, 31, 25], [40, 2, 50, 12]], "labels": [0, 0]}
    forms = [np.stack([ring(), square]).astype(np.uint8), [run_length.encode(ring()), run_length.encode(square)]]
    forms.append([run_length.encode(ring()), [[40.0, 2.0, 50.0, 2.0, 50.0, 12.0, 40.0, 12.0]]])
    made = []
    for masks in forms:
        given = memory.give((pixels, [labels | {"masks": masks}, {"boxes": [], "labels": []}]))
        targets = open_splits(data(given.source), TASK).train.targets
        (first,) = np.flatnonzero(targets["valid"].any(axis=1))
        one, two = stored_masks(targets, first, (HEIGHT, WIDTH))
        assert np.array_equal(one, ring()) and np.array_equal(two, square)
        half = open_splits(data(given.source, image_size=30, resize="pad"), TASK).train.targets
        assert half["mask_box"][first, 1].tolist() == [20, 6, 20 + SIDE / 2, 6 + SIDE / 2]  # under a bar of 5 pixels
        boxed = open_splits(data(given.source), configs.Task(name="detection", most_boxes=4)).train.targets
        assert "mask" not in boxed and np.array_equal(boxed["boxes"], targets["boxes"])
        made.append(given.fingerprint)
    plain = memory.give((pixels, [labels, {"boxes": [], "labels": []}]))
    assert len({plain.fingerprint, *made}) >= 3 and made[0] == made[1]
    with pytest.raises(UserError, match="or give 'masks' beside 'boxes' from Python"):
        open_splits(data(plain.source), TASK)
    empty = memory.give((pixels[:1], [labels | {"masks": np.zeros((2, HEIGHT, WIDTH), np.uint8)}]))
    with pytest.raises(UserError, match=r"data\['train'\]\[0\]: .* no pixel within the image \(and 1 more\)"):
        open_splits(data(empty.source), TASK)


@pytest.mark.parametrize("height, width", [(5, 7), (32, 32), (64, 96), (33, 100), (1, 1)])
def test_a_crop_has_the_value_of_most_of_each_cell(height, width):
    mask = np.zeros((120, 120), np.uint8)
    mask[3 : 3 + height, 7 : 7 + width] = np.random.default_rng(height).random((height, width)) < 0.6
    mask[3, 7 : 7 + width] = mask[3 : 3 + height, 7] = mask[2 + height, 6 + width] = 1
    bits, box = instance_masks.crop(mask, SIDE)
    assert box.tolist() == [7, 3, 7 + max(width, SIDE), 3 + max(height, SIDE)]
    grid = np.unpackbits(bits, axis=1)
    if max(height, width) <= SIDE:
        assert np.array_equal(grid[:height, :width], mask[3 : 3 + height, 7 : 7 + width])
    fine = 8  # samples of each cell in a direction, none of which lies on the border of a pixel
    y, x = (((np.arange(SIDE * fine) + 0.5) / fine * max(n, SIDE) / SIDE).astype(int) for n in (height, width))
    sampled = np.pad(mask, 100)[103 + y[:, None], 107 + x]
    share = sampled.reshape(SIDE, fine, SIDE, fine).mean(axis=(1, 3))
    sure = np.abs(share - 0.5) > 2 / fine  # what the samples can tell
    assert np.array_equal(grid[sure], share[sure] > 0.5) and sure.mean() > 0.25


def test_a_mask_moves_with_its_image_to_the_pixel_when_flipped_and_cropped():
    target_type = Instances(1, 2, SIDE)
    bits, box = instance_masks.crop(ring(), SIDE)
    row = np.zeros(1, target_type.record_type())
    row["boxes"][0, 0], row["mask"][0, 0], row["mask_box"][0, 0] = [10, 5, 31, 25], bits, box
    row["valid"][0, 0], row["frame"][0] = True, [1, 1, 0, 0]
    target = {name: jnp.asarray(row[name][0]) for name in row.dtype.names}
    for across, left, top in ((1, 3, -2), (-1, 4, 6), (1, -15, 7)):
        matrix = jnp.array([[across, 0, (WIDTH if across < 0 else 0) + left], [0, 1, top]], jnp.int32) << 16
        moved = target_type.moved(target, Move.of_matrix(matrix), (HEIGHT, WIDTH))
        wanted = np.zeros_like(ring())
        for y in range(HEIGHT):
            for x in range(WIDTH):
                from_x, from_y = (WIDTH - 1 - x if across < 0 else x) + left, y + top
                if 0 <= from_x < WIDTH and 0 <= from_y < HEIGHT:
                    wanted[y, x] = ring()[from_y, from_x]
        assert np.array_equal(
            from_grid(np.asarray(moved["mask"][0]), np.asarray(moved["mask_box"][0]), ring().shape), wanted
        )
        there = np.argwhere(wanted)
        ends = [*there.min(axis=0)[::-1], *(there.max(axis=0) + 1)[::-1]]
        assert np.asarray(moved["boxes"][0]).tolist() == ends


def test_boxes_of_detection_have_no_masks_and_move_as_before():
    splits = open_splits(
        configs.Data(source="shapes:32:16", val_examples=4), configs.Task(name="detection", most_boxes=4)
    )
    assert set(splits.train.targets) == set(box_records.record_type(4).names)
    with pytest.raises(UserError, match="has no mask for each object"):
        Instances(1, 4, SIDE).read(np.zeros(1, box_records.record_type(4)), "a set", "train")


def test_a_pasted_mask_is_linear_between_the_centres_of_its_cells():
    grid = np.zeros((4, 4))
    grid[:, 2:] = 1.0
    inside = pasted(grid, np.array([10.0, 20.0, 26.0, 36.0]), (50, 30))
    # The middle of the cells 1 and 2 is at 18; of corners, less than half of what is read lies within.
    assert inside[21:35, 18:26].all() and inside[20:36, 19:25].all() and inside.sum() == 16 * 8 - 4
    assert pasted(np.ones((4, 4)), np.array([-6.0, 2.0, 4.0, 6.0]), (8, 8)).sum() == 4 * 4
    assert not pasted(np.ones((4, 4)), np.array([5.0, 2.0, 5.0, 6.0]), (8, 8)).any()


def test_the_figures_of_masks_are_those_of_cocos_code_for_masks_in_the_image(tmp_path):
    from faster_coco_eval import COCO, COCOeval_faster

    splits = open_splits(configs.Data(source="shapes:32:48", val_examples=8), TASK)
    first = np.arange(16)
    targets = whole_targets(splits.train, {name: rows[first] for name, rows in splits.train.targets.items()}, first)
    task = by_name.make(TASK, 3, sides=(32, 32))
    random = np.random.default_rng(0)
    found = np.zeros((16, TASK.most_found, 6 + 28 * 28), np.float32)
    answers, truth = [], []
    for image in range(16):
        for place in np.flatnonzero(targets["valid"][image]):
            box = targets["boxes"][image, place] + random.normal(size=4).astype(np.float32)
            grid = (random.random((28, 28)) < 0.8).astype(np.float32)
            row = [*box, random.uniform(0.1, 1), targets["label"][image, place], *grid.ravel()]
            found[image, place] = row
            answers.append((image, found[image, place], grid))
            label = int(targets["label"][image, place]) + 1
            mask = from_grid(targets["mask"][image, place], targets["mask_box"][image, place], (32, 32))
            truth.append((image, label, run_length.encode(mask), float(targets["area"][image, place])))
    collector = task.evaluation.collector(None)
    collector.add(found, targets)
    figures = collector.figures(("a", "b", "c"), {})
    own = COCO(
        {
            "images": [{"id": k, "height": 32, "width": 32} for k in range(16)],
            "categories": [{"id": k, "name": str(k)} for k in (1, 2, 3)],
            "annotations": [
                {
                    "id": k + 1,
                    "image_id": i,
                    "category_id": c,
                    "segmentation": m,
                    "area": a,
                    "iscrowd": 0,
                    "bbox": [0, 0, 1, 1],
                }
                for k, (i, c, m, a) in enumerate(truth)
            ],
        }
    )
    theirs = own.loadRes(
        [
            {
                "image_id": image,
                "category_id": int(row[5]) + 1,
                "score": float(row[4]),
                "segmentation": run_length.encode(pasted(grid, row[:4], (32, 32))),
            }
            for image, row, grid in answers
        ]
    )
    judged = COCOeval_faster(own, theirs, "segm", print_function=lambda *_: None)
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert figures["mask_ap"] == pytest.approx(judged.stats[0], abs=1e-12)
    assert figures["mask_ap50"] == pytest.approx(judged.stats[1], abs=1e-12) and 0 < figures["mask_ap"] < 0.9
    assert figures["ap"] > 0 and figures["ap"] != figures["mask_ap"]
    assert "masks: AP" in task.evaluation.describe({**figures, "loss": 0.0})[0]


def test_the_mask_of_an_answer_is_painted_in_the_stored_image():
    finds = by_name.make(TASK, 2, sides=(32, 32), network="mask_rcnn_cnn").evaluation
    rows = np.zeros((1, 2, found_instances.BOX_COLUMNS + MASK_OUTPUTS**2), np.float32)
    grid = np.random.default_rng(0).uniform(size=(MASK_OUTPUTS, MASK_OUTPUTS)).astype(np.float32)
    rows[0, 0] = [4, 6, 20, 30, 0.9, 1, *grid.ravel()]
    (answer,) = finds.answers(rows, ("a", "b"), None, {})
    large = finds.in_stored(answer, np.array([0.5, 0.5, 0, 4], np.float32), (48, 64))
    json.dumps(large)
    (one,) = large["boxes"]
    assert one["label"] == "b" and one["bbox"] == pytest.approx([8, 4, 32, 48])
    assert np.array_equal(run_length.decode(one["segmentation"]), pasted(grid, np.array([8, 4, 40, 52]), (48, 64)))
    network = SimpleNamespace(spec=SimpleNamespace(task=SimpleNamespace(finds=finds), image_shape=(32, 32, 3)))
    given = predict.in_stored(network, finds.answers(rows, ("a", "b"), None, {})[0], None)["boxes"][0]
    assert np.array_equal(run_length.decode(given["segmentation"]), pasted(grid, rows[0, 0, :4], (32, 32)))


def test_the_faults_of_images_are_those_of_the_collection_for_the_figures(monkeypatch):
    task = by_name.make(TASK, 2, sides=(32, 40))
    random = np.random.default_rng(0)
    row = np.zeros(6, box_records.record_type(4, SIDE, outlines=True))
    found = np.zeros((6, TASK.most_found, 6 + 28 * 28), np.float32)
    for image in range(6):
        for place in range(3):
            mask = np.zeros((32, 40), np.uint8)
            left, top = random.integers(0, 20, 2)
            mask[top : top + 12, left : left + 10] = random.random((min(12, 32 - top), 10)) < 0.9
            row["mask"][image, place], row["mask_box"][image, place] = instance_masks.crop(mask, SIDE)
            row["outline"][image, place] = run_length.encode(mask)["counts"]
            row["boxes"][image, place] = [left, top, left + 10, min(top + 12, 32)]
            row["label"][image, place], row["valid"][image, place] = random.integers(2), True
            row["area"][image, place] = mask.sum()
            near = row["boxes"][image, place] + random.normal(0, 2, 4)
            found[image, place] = [*near, random.random(), random.integers(2), *(random.random(784) < 0.8)]
    row["frame"], row["stored"] = [1, 1, 0, 0], (32, 40)
    target = {name: row[name] for name in row.dtype.names}
    alone = task.evaluation.faults_of(found, target)
    assert set(alone) == {"missed", "false"} and alone["missed"].sum() > 4 and alone["false"].sum() > 4
    encoded = []
    whole = run_length.encode_at
    monkeypatch.setattr(run_length, "encode_at", lambda *given: encoded.append(1) or whole(*given))
    collector = kept.of(task, None)
    for images in (slice(0, 4), slice(4, 6)):
        collector.add(found[images], {name: column[images] for name, column in target.items()})
    for name, faults in alone.items():
        wanted = {image: faults[image] for image in range(6) if faults[image]}
        assert {each.index: each.faults for each in collector.most[name]} == wanted
    assert len(encoded) == 6 * 3  # each found mask once; those of the annotations are given


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"task": {"name": "instances", "mask_side": 30}}, "mask_side=30 must be a multiple of 8"),
        ({"task": {"name": "detection", "mask_side": 32}}, "mask_side is for config.task.name='instances' only"),
        (
            {"task": {"name": "instances"}, "model": {"name": "yolo_cnn"}},
            "needs a network that answers boxes and masks",
        ),
        ({"task": {"name": "instances"}, "augment": {"mixup": 0.5}}, "mixup does not move boxes and masks"),
    ],
)
def test_senseless_options_are_refused_in_one_line(changes, said):
    groups = {"model": {"name": "mask_rcnn_cnn"}} | changes
    tree = configs.to_dict(configs.Config())
    for name, values in groups.items():
        tree[name] = tree[name] | values
    with pytest.raises(ConfigError) as caught:
        configs.from_config_dict(tree)
    assert said in str(caught.value)
