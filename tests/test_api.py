"""`import jaxcnn`: configs, training, events, arrays and finished runs from Python."""

import gc
import json
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

import jaxcnn
from jaxcnn import config as configs
from jaxcnn.api import training
from jaxcnn.api.progress import NotebookProgress
from jaxcnn.api.shown import Figures
from jaxcnn.data import memory
from jaxcnn.data.source import open_splits
from jaxcnn.tasks.temperature import best_temperature
from jaxcnn.train.hooks import Step
from tests import digits, runs
from tests.test_interrupts import THIN, At

IMAGES = sorted((runs.ROOT / "docs" / "digits").glob("*.png"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The workdir of a run that nothing stopped, made without `jaxcnn.train`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    digits.run(folder, **THIN)
    return folder


@pytest.fixture(scope="module")
def run(undisturbed):
    return jaxcnn.load(undisturbed)


@pytest.fixture(scope="module")
def arrays():
    """The digits as arrays: those of train, and those of test."""
    splits = open_splits(configs.Data(source="digits", protocol="full"))
    return {
        split.name: (split.read(np.arange(len(split))), split.targets) for split in (splits.train, splits.test) if split
    }


def small(**changes):
    return digits.config(**THIN, **changes)


def test_importing_jaxcnn_imports_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import jaxcnn; dir(jaxcnn); "
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['jaxcnn']"


def test_public_names_are_there_and_others_are_not():
    assert {"config", "train", "load", "Run", "UserError"} <= set(dir(jaxcnn))
    assert all(hasattr(jaxcnn, name) for name in jaxcnn.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fit'"):
        jaxcnn.fit  # noqa: B018


def test_a_config_is_a_recipe_and_what_differs():
    config = jaxcnn.config("resnet50", data="folder:photos", epochs=5, lr=0.2, optim={"ema_decay": 0.9}, seed=3)
    assert config.model.name == "resnet50" and config.schedule.name == "cosine", "the usual recipe"
    assert (config.data.source, config.run.epochs, config.seed) == ("folder:photos", 5.0, 3)
    assert (config.optim.learning_rate, config.optim.ema_decay, config.optim.weight_decay) == (0.2, 0.9, 5e-4)
    config.run.epochs = 7
    longer = jaxcnn.config(config, batch_size=32, **{"norm.momentum": 0.8})
    assert (longer.run.epochs, longer.global_batch_size, longer.norm.momentum) == (7.0, 32, 0.8)
    assert config.global_batch_size == 128, "the first one is left alone"


def test_a_config_that_ships_or_lies_in_a_file_is_found(tmp_path):
    assert jaxcnn.config("quickstart:smoke").run.epochs == 2.0
    file = tmp_path / "mine.py"
    file.write_text(
        "from jaxcnn.config import recipes\ndef get_config(variant=''):\n    return recipes.usual('cnn', 'digits')\n"
    )
    assert jaxcnn.config(file).data.source == "digits"
    assert jaxcnn.config("airbench", data="digits").optim.name == "muon"
    mask = jaxcnn.config("mask_rcnn_resnet50", data="coco:photos")
    assert (mask.model.name, mask.task.name) == ("mask_rcnn_resnet50", "instances")
    assert jaxcnn.config("yolox_tiny").norm.epsilon == 1e-3
    assert jaxcnn.config("yolo_csp_m").task.name == "detection" and jaxcnn.config("unet").task.name == "segmentation"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: jaxcnn.config("resnt50"), "there is no recipe 'resnt50' (did you mean 'resnet50'?)"),
        (lambda: jaxcnn.config("missing.py"), "missing.py: this Python file does not exist"),
        (lambda: jaxcnn.config("cnn", epoch=3), "there is no field 'epoch' (did you mean 'run.epochs'?)"),
        (lambda: jaxcnn.config("cnn", momentum=0.5), "'momentum' is the name of config.norm.momentum and"),
        (lambda: jaxcnn.config("cnn", lr=-1), "config.optim.learning_rate must not be negative"),
        (lambda: jaxcnn.config("cnn", data=(1, 2)), "arrays are given to jaxcnn.train"),
        (lambda: jaxcnn.config(3), "a config is made from the name of a recipe or from a config, not int"),
        (lambda: jaxcnn.train(3, "x"), "config must be what jaxcnn.config(…) returns, not int"),
        (lambda: jaxcnn.train("cnn", "x", model=object(), data="digits"), "is neither a Flax module nor a function"),
        (lambda: jaxcnn.train("cnn", "x", model="cn"), "config.model.name must be one of"),
        (lambda: jaxcnn.train("cnn", "x", after_step=[3]), "after_step must be a function of one event"),
        (lambda: jaxcnn.train("cnn", "x", stop=3), "stop must be a function"),
        (lambda: jaxcnn.train("cnn", "x", data=3), "data['train'] must be a pair (images, labels), not int"),
        (lambda: jaxcnn.load("nothing/here"), "config.json is missing; is nothing/here the folder of a run"),
        (lambda: jaxcnn.load("x", checkpoint="bst"), "checkpoint must be 'tested', 'last', 'best' or a step, not"),
        (lambda: jaxcnn.load("x", weights="mean"), "weights must be 'last', 'ema' or '', not 'mean'"),
    ],
)  # fmt: skip
def test_a_bad_call_is_a_user_error_of_one_line(call, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jaxcnn.UserError) as caught:
        call()
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"{type(caught.value).__name__}: {caught.value}"]


def test_errors_name_arguments_in_place_of_flags(undisturbed, run):
    with pytest.raises(jaxcnn.UserError) as caught:
        jaxcnn.train(small(seed=1), undisturbed)
    assert str(caught.value).startswith(f"workdir={undisturbed} holds a run of another config; choose")
    with pytest.raises(jaxcnn.UserError, match=r"^images=none\.png: this file or folder does not exist"):
        run.predict("none.png")


def test_training_in_python_is_the_same_run_and_tells_of_each_step_and_evaluation(tmp_path, undisturbed, capsys):
    steps, evaluations, both = [], [], []
    run = jaxcnn.train(
        small(), tmp_path, after_step=[steps.append, both.append], after_evaluation=evaluations.append, progress=False
    )
    assert runs.kept(tmp_path) == runs.kept(undisturbed)
    assert capsys.readouterr().out == ""
    assert [step.step for step in steps] == list(range(1, 41)) and both == steps
    logged = run.records("train")
    for record in logged:
        of_it = [step.metrics for step in steps[record["step"] - 5 : record["step"]]]
        assert np.isclose(np.mean([m["loss"] for m in of_it]), record["loss"], rtol=1e-6)
        assert of_it[-1]["learning_rate"] == record["learning_rate"]
    assert [evaluation.step for evaluation in evaluations] == [20, 39, 40]
    for evaluation, record in zip(evaluations, run.records("val"), strict=True):
        assert evaluation.figures["loss"] == record["loss"] and evaluation.epoch == record["epoch"]
    assert run.finished and run.step == 40 and run.summary["test"]["examples"] == 360


def test_a_clock_that_jumps_leaves_durations_right(tmp_path, undisturbed, monkeypatch):
    clock, jump = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + jump[0])

    def step(done):
        jump[0] = -1e6 * (done.step > 7)

    run = jaxcnn.train(small(), tmp_path, after_step=step, progress=False)
    assert runs.kept(tmp_path) == runs.kept(undisturbed)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["images_per_second"] < 1e6 for line in lines if "images_per_second" in line)
    seconds = {name: value for name, value in run.summary.items() if name.endswith("_seconds")}
    assert len(seconds) >= 5 and all(0 <= value < 1e4 for value in seconds.values()), seconds


def test_metrics_that_nobody_asks_for_are_not_converted():
    step = Step(1, 2, 0.5, 0.1, _metrics=None)
    with pytest.raises(AttributeError):
        step.metrics  # noqa: B018


def test_the_text_that_python_gives_an_interrupt_is_not_shown(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt("decoding with 'cp437' codec failed (KeyboardInterrupt: )")  # in a zip file's directory

    monkeypatch.setattr(training.loop, "train", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped, nothing was lost; the same call with .* continues$"):
        jaxcnn.train(small(), tmp_path)


@pytest.mark.parametrize(
    ("phase", "told"), [("compile", "stopped, nothing was lost"), ("train", "stopped with a check")]
)
def test_an_interrupted_call_says_in_one_line_how_to_go_on_and_goes_on(phase, told, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(training, "Interrupts", lambda: At(phase))
    with pytest.raises(KeyboardInterrupt) as caught:
        jaxcnn.train(small(), tmp_path)
    assert told in str(caught.value) and str(caught.value).endswith(f"; the same call with {tmp_path} continues")
    assert caught.value._render_traceback_() == [f"KeyboardInterrupt: {caught.value}"]
    monkeypatch.undo()
    jaxcnn.train(small(), tmp_path)
    assert runs.kept(tmp_path) == runs.kept(undisturbed)


def test_a_run_in_a_worker_thread_is_stopped_by_an_event_and_goes_on(tmp_path, undisturbed):
    stop, ended = threading.Event(), []

    def work():
        try:
            jaxcnn.train(small(), tmp_path, stop=stop, after_step=lambda step: step.step == 7 and stop.set())
        except jaxcnn.Interrupted as error:
            ended.append(str(error))
        stop.clear()
        ended.append(jaxcnn.train(small(), tmp_path, stop=stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended[0].startswith("stop requested: stopped with a checkpoint of step")
    assert ended[1].summary["starts"] == 2 and runs.kept(tmp_path) == runs.kept(undisturbed)


def test_an_error_of_a_callback_ends_the_run_which_goes_on_later(tmp_path, undisturbed):
    def fail(evaluation):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        jaxcnn.train(small(), tmp_path, after_evaluation=fail)
    assert jaxcnn.load(tmp_path).step == 20, "the evaluated step is saved"
    jaxcnn.train(small(), tmp_path)
    assert runs.kept(tmp_path) == runs.kept(undisturbed)


def test_a_finished_run_is_returned_as_it_is(undisturbed):
    before = (undisturbed / "summary.json").read_bytes()
    run = jaxcnn.train(small(), undisturbed)
    assert run.summary["steps"] == 40 and (undisturbed / "summary.json").read_bytes() == before


def test_a_run_from_arrays_goes_on_with_equal_arrays_only_and_says_what_it_needs(tmp_path, arrays):
    def copies(change: int = 0):
        return {name: (images + np.uint8(change), labels.copy()) for name, (images, labels) in arrays.items()}

    stop = threading.Event()
    with pytest.raises(jaxcnn.Interrupted, match=f"the same call with {tmp_path} and equal arrays continues"):
        jaxcnn.train(
            small(), tmp_path, data=copies(), stop=stop, after_step=lambda step: step.step == 25 and stop.set()
        )
    with pytest.raises(jaxcnn.UserError, match=r"the data has changed .* \(images differ from data\.json\)"):
        jaxcnn.train(small(), tmp_path, data=copies(change=1))
    run = jaxcnn.train(small(), tmp_path, data=copies())
    assert run.summary["starts"] == 2
    tested = run.evaluate()
    assert run.export("onnx", verify=True, progress=False).verdict.agreement == 1.0, "its arrays are its data"
    assert tested["ema_top1_accuracy" if "ema_top1_accuracy" in tested else "top1_accuracy"] > 0.3
    del run
    gc.collect()
    assert not memory._given, "arrays are let go of with the run"
    later = jaxcnn.load(tmp_path)
    with pytest.raises(jaxcnn.UserError, match=r"this run was made from arrays .* data=.images, labels.*run\.evaluate"):
        later.evaluate()
    assert later.evaluate(data=copies()) == tested
    assert later.evaluate(arrays["test"])["loss"] == tested["loss"], "the same images, given without their split"


def test_a_few_arrays_are_divided_so_that_a_run_is_possible(arrays):
    images, labels = arrays["train"]
    given = memory.give((images[:500, :, :, 0], [f"digit {label}" for label in labels[:500]]))
    data = training.divided(configs.Data(), given)
    splits = open_splits(data)
    assert (len(splits.train), len(splits.val), splits.test) == (400, 100, None)
    assert splits.class_names[3] == "digit 3" and splits.train.image_shape == (8, 8, 1)
    assert np.array_equal(given.parts["train"].labels, labels[:500])
    fixed = training.divided(configs.Data(val_examples=7, test_split="train[400:]", train_split="train[:400]"), given)
    assert (fixed.val_examples, fixed.test_split) == (7, "train[400:]")


WRONG = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((np.full(WRONG.shape, np.nan), [0, 1, 0, 1]), "contain NaN or infinite values"),
        ((WRONG.astype(np.int64) - 1, [0, 1, 0, 1]), "scale them to that range"),
        ((np.moveaxis(WRONG, 3, 1), [0, 1, 0, 1]), "channels first"),
        ((WRONG, [0, 1, 0]), "data['train'] has 4 images, but 3 labels"),
        ((WRONG, np.zeros((4, 2, 2))), "labels are float64 of shape (4, 2, 2)"),
        ({"test": (WRONG, [0, 1, 0, 1])}, "data has no 'train'"),
        ({"train": (WRONG, [0, 1, 0, 1]), "extra": 1}, "data has the key 'extra'"),
        ({"train": (WRONG, ["a", "b", "a", "c"]), "class_names": ["a", "b"]}, "'c', which is not in class_names"),
        (([WRONG[0], WRONG[0][:4]], [0, 1]), "data['train'] images cannot be taken as an array"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_told_in_one_line(data, told):
    with pytest.raises(jaxcnn.UserError) as caught:
        memory.give(data)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_paths_pillow_images_arrays_and_iterators_give_the_same_answers(run):
    opened = [Image.open(path) for path in IMAGES]
    stack = np.stack([np.asarray(image.convert("L")) for image in opened])
    by_path = run.predict(str(IMAGES[0].parent))
    assert [answer["file"] for answer in by_path] == [str(path) for path in IMAGES]
    plain = [{name: value for name, value in answer.items() if name != "file"} for answer in by_path]
    for images in (opened, stack, stack[..., None], iter(stack), (image for image in opened)):
        assert run.predict(images) == plain
    assert run.predict(iter(IMAGES)) == by_path
    large = [image.resize((24, 16), Image.Resampling.NEAREST) for image in opened]
    assert len(run.predict(large)) == len(large), "other sizes are resized"
    mixed = run.predict([IMAGES[0], opened[1], stack[2], stack[3:5]])
    assert [answer["label"] for answer in mixed] == [answer["label"] for answer in plain[:5]]


def test_unreadable_files_are_told_or_skipped(run, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(
        jaxcnn.UserError, match=r"cannot read image .*broken\.png: not an image file; .* or set on_error="
    ):
        run.predict([IMAGES[0], broken])
    answers = run.predict([IMAGES[0], broken], on_error="skip")
    assert answers[1] == {"file": str(broken), "error": "not an image file"} and "label" in answers[0]


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "images has shape (2, 8, 8, 3), but the network takes images [N, H, W, 1]"),
        (np.zeros((2, 8, 8), np.float32), "images is float32, but the network takes uint8"),
        ([np.zeros((8, 8), np.uint8), 3], "images[1] is of type int"),
        ([], "images has no image"),
    ],
)
def test_images_that_do_not_fit_are_told_in_one_line(run, images, told):
    with pytest.raises(jaxcnn.UserError) as caught:
        run.network(images)
    assert str(caught.value).startswith(told)


def test_logits_probabilities_and_features_are_numpy_arrays_that_fit_together(run, arrays):
    images = arrays["test"][0][:70]  # more than one batch
    network = run.network
    logits, probabilities, features = network(images), network.probabilities(images), network.features(images)
    assert logits.shape == (70, 10) and logits.dtype == np.float32 and features.shape == (70, 16)
    scaled = (logits - logits.max(1, keepdims=True)) / network.trained.fitted.get("temperature", 1.0)
    exponential = np.exp(scaled)
    np.testing.assert_allclose(probabilities, exponential / exponential.sum(1, keepdims=True), rtol=1e-4)
    assert network.predict(images[:1])[0]["probability"] == pytest.approx(probabilities[0].max(), rel=1e-5)
    head = network.variables["params"]["classifier"]
    np.testing.assert_allclose(features @ head["kernel"].T + head["bias"], logits, atol=1e-4)
    assert network.features(images[:2], "conv3").shape == (2, 4, 4, 16)
    with pytest.raises(jaxcnn.UserError, match="no layer 'conv9'; it has bn1, "):
        network.features(images, "conv9")


def test_weights_and_checkpoints_are_chosen_when_a_run_is_loaded(undisturbed, run):
    assert (run.network.step, run.network.weights) == (40, "ema")
    early = jaxcnn.load(undisturbed, checkpoint=20, weights="last").network
    assert (early.step, early.weights) == (20, "last")
    with pytest.raises(jaxcnn.UserError, match="has no checkpoint 21; it has 20, "):
        jaxcnn.load(undisturbed, checkpoint=21).network  # noqa: B018


def test_figures_show_themselves(run, undisturbed):
    figures = run.evaluate("test")
    assert figures["top1_accuracy"] == run.summary["test"]["ema_top1_accuracy"]
    assert figures.picture.path == undisturbed / "eval-test-40.png"
    for shown in (run, figures, run.test, run.summary, run.records(), run.records("val"), run.predict(IMAGES)):
        assert "<table>" in shown._repr_html_()
    told = {"steps": 39, "epochs": 39 / 19.33}
    assert "<td>epochs</td><td>2</td>" in Figures(told)._repr_html_()
    assert "<td>epochs</td><td>2.07</td>" in Figures(told | {"steps": 40, "epochs": 40 / 19.33})._repr_html_()
    assert run.curves()._repr_png_().startswith(b"\x89PNG") and "image/png" in run._repr_html_()
    assert "test accuracy" in repr(run) and repr(run.curves()) == f"Picture('{undisturbed}/curves.png')"
    assert run.records("val").column("step") == [20, 39, 40]
    assert run.predict(IMAGES)._repr_html_().count("<img") == len(IMAGES)


def test_a_run_that_has_not_ended_shows_what_there_is(tmp_path, undisturbed):
    (tmp_path / "config.json").write_bytes((undisturbed / "config.json").read_bytes())
    run = jaxcnn.load(pathlib.Path(tmp_path))
    assert run.summary is None and run.test is None and run.records() == [] and not run.finished
    assert repr(run) == f"<run of cnn in {tmp_path}: no checkpoint yet>"
    assert "has no records yet" in run._repr_html_()


def test_the_bar_of_a_notebook_is_drawn_a_few_times_only_and_has_a_row_for_each_evaluation(run):
    bar = NotebookProgress()
    pages = []

    class Handle:
        def update(self, shown):
            pages.append(shown._repr_html_())

    bar._handle = Handle()
    for number in range(1, 31):
        step = Step(number, 40, number / 20, 0.1, _metrics=None)
        vars(step)["metrics"] = {"loss": 1.25, "top1_accuracy": 0.5, "learning_rate": 0.1}
        bar.after_step(step)
    assert len(pages) < 10
    for record in run.records("val"):
        bar.after_evaluation(jaxcnn.Evaluation(record["step"], 40, record["epoch"], {"loss": record["loss"]}, True))
    bar.close()
    assert 'value="30" max="40"' in pages[-1] and pages[-1].count("<tr>") == 1 + 3
    assert "<td>1</td><td>20</td>" in pages[-1], "the first epoch ends in step 20"


def test_floats_and_columns_of_labels_are_other_tasks_of_the_same_functions(tmp_path, arrays):
    images, labels = arrays["train"]
    columns = np.stack([labels < 5, labels % 2 == 0, labels > 7], axis=1).astype(np.float32)
    data = {"train": (images / 255, columns), "class_names": ["small", "even", "large"]}
    config = small(task=configs.Task(name="multilabel"), run={"steps": 3}, optim={"ema_decay": 0.0})
    run = jaxcnn.train(config, tmp_path, data=data, progress=False)
    assert run.config.data.dtype == "float32" and run.config.data.test_split == ""
    answers = run.predict(images[:4] / 255)
    assert list(answers[0]["probabilities"]) == ["small", "even", "large"]
    probabilities = run.network.probabilities(images[:4] / 255)
    assert np.allclose([list(answer["probabilities"].values()) for answer in answers], probabilities, rtol=1e-6)
    assert answers._repr_html_().count("<img") == 4
    assert run.evaluate((images[:50] / 255, columns[:50]))["examples"] == 50
    thresholds = json.loads((tmp_path / "fitted.json").read_text())["fitted"]["thresholds"]  # without a test split
    assert run.network.trained.fitted == {"thresholds": thresholds} and thresholds != [0.5] * 3
    for answer in answers:
        pairs = zip(answer["probabilities"].items(), thresholds, strict=True)
        assert answer["labels"] == [name for (name, probability), least in pairs if probability >= least]
    figures = run.evaluate("val")
    assert figures["examples"] == 200 and list(figures["thresholds"].values()) == thresholds
    assert figures["at_thresholds"]["macro_f1"] > figures["at_half"]["macro_f1"]


def test_a_run_with_balanced_sampling_that_was_stopped_has_the_bits_of_one_that_was_not(tmp_path):
    splits = open_splits(configs.Data(source="digits", protocol="full"))
    images, labels = splits.train.read(np.arange(len(splits.train))), splits.train.targets
    kept = np.flatnonzero((labels > 2) | (np.arange(len(labels)) % 4 == 0))  # three rare classes
    np.savez(tmp_path / "rare.npz", train_images=images[kept], train_labels=labels[kept])
    data = {"source": f"npz:{tmp_path}/rare.npz", "val_examples": 200, "test_split": "", "sampling": "balanced"}
    folders = tmp_path / "whole", tmp_path / "continued"
    digits.run(folders[0], **THIN, data=data)
    digits.run_up_to(23, folders[1], **THIN, data=data)  # within the second epoch
    digits.run(folders[1], **THIN, data=data)
    whole, continued = map(runs.kept, folders)
    assert continued["checkpoints"].pop("23")  # that of the stop
    assert runs.differences(whole, continued) == [] and len(whole["records"]) == 10
    assert whole["summary.json"]["steps"] == digits.STEPS > whole["summary.json"]["epochs"] * (len(kept) - 200) / 64


def test_a_run_without_a_test_split_fits_temperature_and_thresholds_also_when_it_is_continued(tmp_path):
    data = {"source": "digits", "val_examples": 200, "test_split": ""}
    changes = {"data": data, "task": configs.Task(specificity=0.9)}
    folders = tmp_path / "whole", tmp_path / "continued"
    digits.run(folders[0], **THIN | changes)
    digits.run_up_to(digits.STEPS, folders[1], **THIN | changes)
    assert not (folders[1] / "fitted.json").exists()
    digits.run(folders[1], **THIN | changes)
    one, other = map(runs.kept, folders)
    assert runs.differences(one, other) == [] and one["summary.json"]["test"] is None
    kept = one["fitted.json"]
    assert (kept["step"], kept["weights"], set(kept["fitted"])) == (40, "ema", {"temperature", "thresholds"})
    network = jaxcnn.load(folders[1]).network.trained
    split = open_splits(network.config.data).val
    logits = network.outputs(split, 0)
    assert network.fitted == kept["fitted"]
    # Batches of another size, which round otherwise: in float32, and by the tolerance of the search.
    assert network.fitted["temperature"] == pytest.approx(best_temperature(logits, split.targets), rel=1e-5)
    rest = softmax(logits.astype(np.float64), axis=1)[split.targets != 3, 3]
    assert (rest < network.fitted["thresholds"][3] + 1e-6).mean() >= 0.9
