"""The picture of a run's curves shows what the run wrote down."""

import json

import pytest
from matplotlib.figure import Figure

from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train import curves

ACCURACY = Accuracy.headline


def write(folder, *, val: bool, ema: bool, test: bool, epochs: int = 3) -> None:
    """A `metrics.jsonl` as runs write it, with two training records per epoch."""
    records: list[dict] = []
    for n in range(1, 2 * epochs + 1):
        figures = {"epoch": n / 2, "loss": 2 / n, "top1_accuracy": 1 - 1 / n, "top5_accuracy": 1.0}
        averaged = {f"ema_{name}": value for name, value in figures.items() if name != "epoch"} if ema else {}
        records.append({"kind": "train", "step": n, **figures, "learning_rate": 0.1 / n})
        if val and n % 2 == 0:
            records.append({"kind": "val", "step": n, **figures, **averaged})
    if test:
        records.append({"kind": "test", "step": n, "loss": 0.5, "top1_accuracy": 0.5, "ema_top1_accuracy": 0.625})
        if not ema:
            del records[-1]["ema_top1_accuracy"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def remember(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def labels(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("kinds", "loss", "accuracy"),
    [
        (
            {"val": True, "ema": False, "test": True},
            ["training", "validation"],
            ["training", "validation", "test 50.00 %"],
        ),
        ({"val": False, "ema": False, "test": True}, ["training"], ["training", "test 50.00 %"]),
        (
            {"val": True, "ema": True, "test": True},
            ["training", "validation", "validation, moving average"],
            ["training", "validation", "validation, moving average", "test 62.50 %"],
        ),
        ({"val": True, "ema": False, "test": False}, ["training", "validation"], ["training", "validation"]),
    ],
)
def test_each_curve_that_the_run_has_is_drawn_and_named(kinds, loss, accuracy, drawn, tmp_path):
    write(tmp_path, **kinds)
    path = curves.draw(tmp_path, ACCURACY)
    assert path == tmp_path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    (figure,) = drawn
    loss_axes, accuracy_axes, rate_axes = figure.axes
    assert labels(loss_axes) == loss
    assert labels(accuracy_axes) == accuracy
    (rate,) = rate_axes.lines
    assert rate.get_ydata().tolist() == pytest.approx([0.1 / n for n in range(1, 7)])
    train = accuracy_axes.lines[0]
    assert train.get_xdata().tolist() == [0.5, 1, 1.5, 2, 2.5, 3]
    assert train.get_ydata().tolist() == pytest.approx([100 * (1 - 1 / n) for n in range(1, 7)])


def test_a_last_line_cut_off_by_a_crash_is_left_out(tmp_path):
    write(tmp_path, val=True, ema=False, test=False)
    whole = curves.read_records(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 7, "lo')
    assert curves.read_records(tmp_path) == whole
    curves.draw(tmp_path, ACCURACY)


def test_a_run_too_short_for_any_record_still_has_a_picture(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert curves.draw(tmp_path, ACCURACY).exists()


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_single_record_is_seen_in_every_panel(epochs, drawn, tmp_path):
    write(tmp_path, val=True, ema=False, test=True, epochs=epochs)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    train = next(line for line in lines if '"step": 2,' in line and '"train"' in line)
    rest = [line for line in lines if '"train"' not in line]
    (tmp_path / "metrics.jsonl").write_text("".join([train, *rest]))
    curves.draw(tmp_path, ACCURACY)
    (figure,) = drawn
    for axes in figure.axes:
        point = axes.lines[0]
        assert point.get_marker() == "o" and len(point.get_xdata()) == 1
        assert axes.get_xlim() == pytest.approx((0, 1.05 * epochs))  # no point lies on the edge
        if (legend := axes.get_legend()) is not None:
            where = axes.transData.transform(point.get_xydata())[0]
            assert not legend.get_window_extent().contains(*where)


def test_the_title_says_which_run_it_is_and_training_is_told_apart(drawn, tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    write(folder, val=True, ema=False, test=False, epochs=60)
    config = {"model": {"name": "vgg16"}, "data": {"source": "tfds:cifar10"}, "seed": 7, "global_batch_size": 128}
    config |= {"optim": {"learning_rate": 0.05}, "augment": {"flip": "random", "small_sides": []}}
    (folder / "config.json").write_text(json.dumps(config))
    curves.draw(folder, ACCURACY)
    (figure,) = drawn
    title = "my run: vgg16 on tfds:cifar10, batch size 128, learning rate 0.05, seed 7"
    assert figure.get_suptitle() == title
    assert labels(figure.axes[0]) == ["training (augmented, smoothed)", "validation"]
    faint, smooth = figure.axes[0].lines[:2]
    assert faint.get_alpha() < 1 and len(faint.get_ydata()) == len(smooth.get_ydata()) == 120
    assert figure.axes[0].get_yscale() == "log"


def test_only_augmentation_that_is_on_counts():
    assert not curves.augments({"augment": {"normalize": True, "flip": "none", "crop_padding": 4, "own": []}})
    assert curves.augments({"augment": {"mixup": 0.2}})
    assert not curves.augments({})


def test_the_axis_of_the_accuracy_shows_where_it_happens():
    points = [(1, 10.0), (2, 90.0), (5, 92.0), (10, 95.0), (float("inf"), 94.0)]
    low, high = curves.interesting(points, top=100)
    assert 89 < low < 90 and 95 < high < 96
    assert curves.interesting([(1, 99.0), (2, 100.0)], top=100)[1] == pytest.approx(100.03)
    assert curves.interesting([(1, 5.0)], top=None) is None
    assert curves.interesting([], top=100) is None


def test_smoothing_keeps_a_straight_line():
    assert curves.smoothed([1.0, 2.0, 3.0, 4.0, 5.0], 2) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert curves.smoothed([0.0, 3.0, 0.0], 1) == [0.0, 1.0, 0.0]
