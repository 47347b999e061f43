"""What the benchmarks measure, compute and write. No timing decides a test."""

import contextlib
import importlib.util
import json
import pathlib
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import (
    cases,
    contest,
    explain_cases,
    flops,
    input_report,
    jaxcnn_explain,
    jaxcnn_tasks,
    loaders,
    measure,
    peers_report,
    population_cost,
    report,
    sweep_cost,
)
from benchmarks.population_cost import ALONE, Swept
from benchmarks.serve import Served
from benchmarks.worker import Worker, WorkerFailed, check_devices, start_torch
from jaxcnn.config import UserError
from jaxcnn.data import turbo_jpeg
from tests import runs


def fake(name: str = "PyTorch") -> contextlib.closing:
    """A worker process that starts in a moment."""
    return contextlib.closing(Worker(name, sys.executable, "tests.fake_peer"))


class InProcess:
    """A worker whose module is served by this very process, with seconds a step that it is told to report."""

    def __init__(self, module: str, seconds: float) -> None:
        self._served, self._seconds = Served(module), seconds
        self.facts = self._served.hello()

    def build(self, spec):
        return self._served.build(spec)["seconds"]

    def run(self, steps):
        self._served.run(steps)
        return self._seconds * steps

    def steps_for(self, seconds):
        return 1

    def ask(self, do):
        return getattr(self._served, do)()

    def close(self):
        pass


def plan(start, peers=("jaxcnn", "torch"), variants=("eager",)) -> contest.Plan:
    return contest.Plan(start=start, peers=peers, rounds=2, seconds=0.0, variants={"cpu": variants})


def test_the_ratio_is_that_of_the_speeds_round_by_round():
    ours = measure.Timing(steps=3, seconds_per_step=(1.0, 2.0, 4.0))
    theirs = measure.Timing(steps=1, seconds_per_step=(2.0, 3.0, 12.0))
    assert measure.speed_ratio(ours, theirs) == {"median": 2.0, "lowest": 1.5, "highest": 3.0}
    assert theirs.median == 3.0


def test_peers_take_turns_in_blocks_of_their_own_length_after_a_step_that_is_not_counted():
    calls = []

    def peer(name, seconds_per_step, steps):
        def run(count):
            calls.append((name, count))
            return count * seconds_per_step

        return SimpleNamespace(run=run, steps_for=lambda seconds: steps)

    timings = measure.interleave({"a": peer("a", 0.5, 4), "b": peer("b", 0.25, 8)}, rounds=2, seconds=2.0)
    assert calls == 2 * [("a", 1), ("a", 4), ("b", 1), ("b", 8)]
    assert timings["b"] == measure.Timing(8, (0.25, 0.25))


def test_ratios_of_memory_are_of_the_peak_of_what_import_left_and_of_the_steps():
    timing = measure.Timing(1, (1.0,))
    memory = {
        "jaxcnn": {"baseline_bytes": 100, "peak_bytes": 300, "peak_of_steps_bytes": 150, "device_peak_bytes": None},
        "torch": {"baseline_bytes": 200, "peak_bytes": 600, "peak_of_steps_bytes": 200, "device_peak_bytes": None},
    }
    ratios = contest.ratios({"jaxcnn": timing, "torch": timing}, memory)
    assert ratios["memory"] == {"peak": 0.5, "peak_above_import": 0.5, "peak_of_steps": 0.75}


# Multiply-adds of each layer, from the shapes in the networks' tables: pixels, kernel, channels in and out.
VGG16 = [32**2 * 9 * 3 * 64, 32**2 * 9 * 64 * 64, 16**2 * 9 * 64 * 128, 16**2 * 9 * 128 * 128]
VGG16 += [8**2 * 9 * 128 * 256, *[8**2 * 9 * 256 * 256] * 2, 4**2 * 9 * 256 * 512, *[4**2 * 9 * 512 * 512] * 2]
VGG16 += [*[2**2 * 9 * 512 * 512] * 3, 512 * 10]
ALEXNET = [16**2 * 9 * 3 * 64, 8**2 * 9 * 64 * 192, 4**2 * 9 * 192 * 384, 4**2 * 9 * 384 * 256, 4**2 * 9 * 256 * 256]
ALEXNET += [2 * 2 * 256 * 4096, 4096 * 4096, 4096 * 10]


@pytest.mark.parametrize(("model", "layers"), [("vgg16", VGG16), ("alexnet", ALEXNET)])
def test_flops_are_two_for_each_multiply_add_of_the_layers(model, layers):
    counted = flops.count(jaxcnn_tasks.spec_of(cases.Case(model, "train", 4, "cpu", "float32").spec()))
    assert counted.predict == 2 * sum(layers)
    # Training adds both gradients of every layer, but not that of the images.
    assert counted.train == 2 * (3 * sum(layers) - layers[0])


def test_a_frozen_kernel_has_no_gradient_to_count():
    counted = flops.count(jaxcnn_tasks.spec_of(cases.Case("airbench", "train", 4, "cpu", "float32").spec()))
    whitening = 2 * 31**2 * 4 * 3 * 24  # the first layer: nor has it a gradient of the images
    assert counted.train == 3 * counted.predict - 2 * whitening


def test_a_worker_counts_only_its_own_steps_and_stands_still_between_them():
    with fake() as worker:
        worker.build({})
        worker.run(5)
        assert worker.ask("finish")["facts"] == {"count": 5, "settled": 1}
        status = pathlib.Path(f"/proc/{worker._process.pid}/status")
        deadline = time.monotonic() + 60
        while status.exists() and "T (stopped)" not in status.read_text():
            assert time.monotonic() < deadline, "the worker was not stopped"
            time.sleep(0.01)


def test_memory_of_a_worker_is_above_what_import_left():
    size = 64 * 2**20
    with fake() as worker:
        worker.build({"bytes": size})
        worker.run(1)
        memory = worker.ask("finish")["memory"]
    # The kernel counts resident pages with an error of some tens of pages for each thread.
    assert memory["peak_bytes"] - memory["baseline_bytes"] > 0.95 * size
    assert memory["peak_bytes"] == max(memory["peak_of_build_bytes"], memory["peak_of_steps_bytes"])
    assert memory["device_peak_bytes"] is None


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"say": "first line\nsecond line"}, "PyTorch: ValueError: first line"),
        ({"exit": 7}, "PyTorch: it ended with exit code 7: what it said at last"),
    ],
)
def test_a_workers_failure_is_one_line(spec, told):
    with fake() as worker:
        with pytest.raises(WorkerFailed) as failure:
            worker.build(spec)
        assert str(failure.value) == told


def test_a_killed_worker_is_said_to_be_killed():
    with fake() as worker:
        worker._signal(signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="it was killed, perhaps because of too little memory"):
            worker.build({})


def test_a_case_has_all_figures_of_both_peers():
    case = cases.Case("alexnet", "train", 4, "cpu", "float32", width=1 / 16)

    def start(peer, device, way):
        module = {"jaxcnn": "benchmarks.jaxcnn_tasks", "torch": "tests.fake_peer"}[peer]
        return InProcess(module, seconds={"jaxcnn": 0.25, "torch": 0.5}[peer])

    result = contest.measure(plan(start), case)
    assert result["ratios"]["speed"] == {"median": 2.0, "lowest": 2.0, "highest": 2.0}
    ours = result["peers"]["jaxcnn"]
    assert ours["images_per_second"] == 16.0
    assert ours["flops_per_second"] == 16.0 * result["flops_per_image"]
    assert ours["blocks"] == {"steps": 1, "seconds_per_step": (0.25, 0.25)}
    assert ours["memory"].keys() == result["peers"]["torch"]["memory"].keys()
    assert np.isfinite(ours["facts"]["loss"])
    assert result["peers"]["torch"]["variant"] == "eager"


def test_photos_have_the_imagenet_form_and_torchvisions_networks_are_measured_on_them():
    photo, small = (cases.make_cases(["vgg16"], ["train"], [2], ["cpu"], "", 1.0, side)[0] for side in (64, 0))
    assert photo.spec()["config"]["model"] == {"name": "vgg16", "form": "imagenet"} and photo.spec()["side"] == 64
    assert small.spec()["config"]["model"] == {"name": "vgg16"} and small.spec()["side"] == 32
    assert photo.title == "vgg16 at 64 pixels training, batch 2, cpu float32"
    (mobile, *_) = cases.make_cases(["mobilenet_v2"], ["predict"], [], ["cpu"], "", 1.0)
    assert (mobile.side, mobile.batch_size) == (224, 1)
    for models, width, side in ((["mobilenet_v2"], 1.0, 32), (["mobilenet_v2"], 0.5, 0), (["airbench"], 1.0, 224)):
        with pytest.raises(UserError, match=models[0]):
            cases.make_cases(models, ["train"], [1], ["cpu"], "", width, side)
    task = jaxcnn_tasks.TASKS["predict"](cases.Case("squeezenet1_1", "predict", 2, "cpu", "float32", 1.0, 64).spec())
    task.run(1)
    assert task._logits.shape == (2, 10)


def scripted(figures):
    """A worker of any peer that reports these seconds a step, by variant or peer; a string is a failure."""

    def start(peer, device, way):
        worker = SimpleNamespace(seconds=None, closed=False, facts={}, steps_for=lambda seconds: 2)

        def build(spec):
            worker.key = way or ("product" if spec["task"] == "matrix_product" else peer)
            if isinstance(figures[worker.key], str):
                raise WorkerFailed(figures[worker.key])
            return 1.0

        memory = {"baseline_bytes": 1, "peak_bytes": 3, "peak_of_steps_bytes": 2, "device_peak_bytes": None}
        worker.build = build
        worker.run = lambda steps: figures[worker.key] * steps
        worker.ask = lambda do: {"facts": {"flops_per_image": 10}, "memory": memory}
        worker.close = lambda: setattr(worker, "closed", True)
        started.append(worker)
        return worker

    started: list = []
    return start, started


def test_the_fastest_way_of_pytorch_is_measured_and_the_others_are_told():
    case = cases.Case("vgg16", "train", 4, "cpu", "float32")
    start, started = scripted({"eager": 3.0, "compile": 2.0, "max-autotune": "no compiler", "jaxcnn": 1.0})
    result = contest.measure(plan(start, variants=("eager", "compile", "max-autotune")), case)
    torch = result["peers"]["torch"]
    assert torch["variant"] == "compile" and torch["seconds_per_step"] == 2.0
    assert torch["variants"] == {"eager": 3.0, "compile": 2.0, "max-autotune": "failed: no compiler"}
    assert all(worker.closed for worker in started)


def test_a_failed_case_is_told_and_the_others_are_measured(tmp_path):
    chosen = cases.make_cases(["vgg16"], ["train", "predict"], [4], ["cpu"], "", 1.0)
    start, _ = scripted({"eager": 2.0, "product": 0.5, "jaxcnn": 1.0})
    spoilt, _ = scripted({"eager": "out of memory", "product": 0.5, "jaxcnn": 1.0})
    answers = iter([start] * 2 + [spoilt] + [start] * 5)  # products of both peers, one case of one start, and the rest
    kept = []
    record = contest.measure_all(plan(lambda *a: next(answers)(*a)), chosen, lambda line: None, kept.append)
    assert record["cases"][0]["error"] == "vgg16 training, batch 4, cpu float32: eager failed: out of memory"
    measured = record["cases"][1]
    assert measured["peers"]["jaxcnn"]["images_per_second"] == 4.0
    peak = 2 * 2048**3 / 0.5
    assert record["matrix_products"][0]["flops_per_second"] == peak
    assert measured["peers"]["jaxcnn"]["fraction_of_matrix_peak"] == 40.0 / peak
    assert record["matrix_products"][0]["after"] and not kept[-1]["matrix_products"][0]["after"]
    assert [len(each["cases"]) for each in kept] == [1, 2]
    record |= report.provenance("benchmarks.peers", {"jaxcnn": {"backend": "cpu"}})
    text = peers_report.markdown(record)
    assert "| vgg16, inference, 4, cpu float32 | 0.0000000100 | 1,000 | 4.00 |" in text
    assert "Failed: vgg16 training, batch 4, cpu float32: eager failed: out of memory" in text
    json.dumps(record)


def test_each_command_rewrites_its_own_section_only(tmp_path):
    out = report.check_out(str(tmp_path / "benchmarks.md"))
    report.write(out, "peers", {"n": 1}, "peers, first")
    report.write(out, "input", {"n": 2}, r"input \1")
    data, markdown = report.write(out, "peers", {"n": 3}, "peers, second")
    assert json.loads(data.read_text()) == {"peers": {"n": 3}, "input": {"n": 2}}
    text = markdown.read_text()
    assert "peers, first" not in text
    assert text.index("peers, second") < text.index(r"input \1")


def test_files_that_are_not_ours_are_not_written_over(tmp_path):
    (tmp_path / "mine.json").write_text("[1]")
    with pytest.raises(UserError, match="contains no benchmarks"):
        report.check_out(str(tmp_path / "mine"))
    with pytest.raises(UserError, match="there is no folder"):
        report.check_out(str(tmp_path / "absent" / "x"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (1.0, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (0.0, "0.00"),
        (None, "-"),
    ],
)
def test_figures_have_three_digits_and_no_exponent(value, text):
    assert report.figure(value) == text


def test_both_loaders_make_batches_of_the_set_and_of_its_jpegs(tmp_path):
    sets = loaders.make_sets(tmp_path, "synthetic:32x32x3:4:24", "", jpegs=8)
    assert np.load(sets[0].torch["images"]).shape == (24, 32, 32, 3)
    assert len(list(pathlib.Path(sets[1].torch["folder"]).glob("*/*.jpg"))) == 8
    for image_set in sets:
        chosen = loaders.loaders_of(image_set, batch_size=4, peers=["jaxcnn"], workers=[])
        result = loaders.measure(image_set, chosen, lambda peer: InProcess("benchmarks.jaxcnn_input", 0.5), 1, 0.0)
        speeds = {title: figures["images_per_second"] for title, figures in result["loaders"].items()}
        assert speeds == {"jaxcnn resident": 8.0, "jaxcnn stream": 8.0}


def test_batches_of_the_host_are_made_of_jpegs_in_first_and_in_later_epochs(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    jpegs = loaders.make_sets(tmp_path, "synthetic:32x32x3:4:24", "", jpegs=8)[1]
    monkeypatch.setattr(turbo_jpeg, "decode", turbo_jpeg.decode)  # a worker replaces it
    results = []
    for image_set in loaders.host_sets(tmp_path, jpegs, torch=True):
        chosen = loaders.loaders_of(image_set, batch_size=4, peers=["jaxcnn"], workers=[])
        results.append(
            loaders.measure(image_set, chosen, lambda peer: InProcess("benchmarks.jaxcnn_input", 0.5), 1, 0.0)
        )
    assert [list(result["loaders"]) for result in results] == [
        ["jaxcnn, kept nowhere", "jaxcnn, kept nowhere, Pillow alone", "jaxcnn, first epoch with data.cache"],
        ["jaxcnn, later epochs with data.cache"],
    ]  # fmt: skip
    theirs = np.load(tmp_path / "decoded.npy", mmap_mode="r")
    (kept,) = (tmp_path / "kept").glob("*.bin")
    assert kept.read_bytes()[8192:] == theirs.tobytes()  # both read the same pixels, and the file is full
    record = {"sets": [dict(each, cores=2) for each in results], "rounds": 1, "seconds": 1.0, "batch_size": 4}
    text = input_report.markdown(record | report.provenance("benchmarks.input", {"jaxcnn": {"backend": "cpu"}}))
    assert "later epochs with data.cache 64.0." in text  # 8 a second of two cores, of sixteen


def test_a_loader_that_fails_is_told_and_the_others_are_measured():
    image_set = loaders.ImageSet("images", {}, {})
    chosen = loaders.loaders_of(image_set, 4, ["jaxcnn", "torch"], ["0", "2"])
    seconds = iter([0.5, 0.25, "no Pillow", 1.0])

    def start(peer):
        answer = next(seconds)

        def build(task):
            if isinstance(answer, str):
                raise WorkerFailed(answer)

        return SimpleNamespace(
            build=build,
            steps_for=lambda seconds: 1,
            run=lambda steps: answer,
            ask=lambda do: {"memory": {}},
            close=lambda: None,
        )

    result = loaders.measure(image_set, chosen, start, rounds=2, seconds=1.0)
    assert input_report.lines(result) == [
        "jaxcnn resident: 8.00 images/s",
        "jaxcnn stream: 16.0 images/s",
        "DataLoader, 0 workers: failed: DataLoader, 0 workers on images: no Pillow",
        "DataLoader, 2 workers: 4.00 images/s",
    ]
    assert result["loaders"]["jaxcnn stream"]["ratio"] == {"median": 4.0, "lowest": 4.0, "highest": 4.0}
    record = {"sets": [result], "rounds": 2, "seconds": 1.0, "batch_size": 4}
    text = input_report.markdown(record | report.provenance("benchmarks.input", {"jaxcnn": {"backend": "cpu"}}))
    assert "|  | jaxcnn stream | 16.0 | 4.00 (4.00 to 4.00) |" in text


def test_the_command_measures_and_writes(tmp_path):
    flags = ("--peers=jaxcnn", "--models=alexnet", "--modes=predict", "--batch_sizes=4", "--width=0.0625")
    code, output = runs.run(
        *flags, "--rounds=1", "--seconds=0", f"--out={tmp_path / 'b'}", "--devices=cpu", module="benchmarks.peers",
        **runs.UNOPTIMISED,
    )  # fmt: skip
    assert code == 0, output
    record = json.loads((tmp_path / "b.json").read_text())["peers"]
    assert record["command"].startswith("python -m benchmarks.peers --peers=jaxcnn")
    assert record["cases"][0]["peers"]["jaxcnn"]["seconds_per_step"] > 0
    assert "## jaxcnn and PyTorch: networks" in (tmp_path / "b.md").read_text()


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--models=vgg", f"--models: unknown value 'vgg'; choose from {', '.join(cases.NETWORKS)}"),
        ("--batch_sizes=8,no", "--batch_sizes=8,no must be whole numbers of at least 1"),
        ("--peers=torch", "--peers must include jaxcnn, with which the others are compared"),
        ("--torch_python=/absent/python", "PyTorch: /absent/python does not start: No such file or directory"),
    ],
)
def test_a_mistake_in_flags_is_one_line(tmp_path, flag, told):
    assert runs.run(flag, f"--out={tmp_path / 'b'}", module="benchmarks.peers") == (2, f"jaxcnn: {told}\n")


@pytest.mark.parametrize("huge_pages", [False, True])
@pytest.mark.parametrize(
    ("inherited", "left"),
    [("glibc.malloc.tcache_count=7", ["glibc.malloc.tcache_count=7"]), ("glibc.malloc.tcache_count=0", [])],
)
def test_pytorch_has_huge_pages_only_where_it_is_asked_to(monkeypatch, huge_pages, inherited, left):
    monkeypatch.setenv("GLIBC_TUNABLES", f"{inherited}:glibc.malloc.hugetlb=1")
    with contextlib.closing(start_torch(sys.executable, "tests.fake_peer", "cpu", huge_pages)) as worker:
        expected = [*left, *(["glibc.malloc.hugetlb=1"] if huge_pages else [])]
        assert worker.facts["tunables"] == ":".join(expected)


def test_a_gpu_that_is_not_there_is_refused():
    facts = {"jaxcnn": {"device_kind": "gpu"}, "torch": {"device_kind": "cpu"}}
    check_devices(["cpu"], facts)
    with pytest.raises(UserError, match="but torch finds none"):
        check_devices(["cpu", "gpu"], facts)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is here")
@pytest.mark.parametrize("module", ["benchmarks.peers", "benchmarks.input"])
def test_a_missing_pytorch_is_one_line(tmp_path, module):
    code, output = runs.run(f"--out={tmp_path / 'b'}", module=module)
    assert (code, output.count("\n")) == (2, 1)
    assert "this Python has no torch; pip install -e .[bench]" in output


def test_calls_are_measured_beside_the_loop(tmp_path):
    flags = ("--models=cnn", "--batch_size=4", "--width=0.25", "--steps=2", "--rounds=1", "--seconds=0")
    code, output = runs.run(*flags, f"--out={tmp_path / 'b'}", module="benchmarks.calls", **runs.UNOPTIMISED)
    assert code == 0, output
    record = json.loads((tmp_path / "b.json").read_text())["calls"]
    assert record["networks"][0]["seconds_per_step"].keys() == {"calls", "loop"}
    assert "| cnn, width 0.25, batch 4 |" in (tmp_path / "b.md").read_text()


def trial(began: str, ended: str, steps: float, compiling: float, state: str = "complete") -> dict:
    """A `trial.json` as the sweep's benchmark reads it."""
    moments = {"began": f"2026-01-01T00:00:{began}+00:00", "ended": f"2026-01-01T00:00:{ended}+00:00"}
    seconds = {"train_seconds": steps, "eval_seconds": 1.0, "compile_seconds": compiling}
    return {"state": state, "starts": 1, "worker": "h:1"} | moments | seconds


def sweep_folder(folder: pathlib.Path, *trials: dict) -> pathlib.Path:
    (folder / "sweep.json").write_text(json.dumps({"planned": [{}] * len(trials)}))
    for number, row in enumerate(trials):
        (folder / "trials" / str(number)).mkdir(parents=True)
        (folder / "trials" / str(number) / "trial.json").write_text(json.dumps(row))
    return folder


def test_a_sweep_is_measured_from_its_first_start_to_its_last_end_less_one_compilation(tmp_path):
    rows = sweep_cost.read(sweep_folder(tmp_path, trial("16", "26", 8.0, 0.5), trial("00", "16", 7.0, 6.0)))
    figures = sweep_cost.measure(rows)
    assert (figures["whole_seconds"], figures["compile_seconds"], figures["preparation_seconds"]) == (26.0, 6.0, 0.5)
    assert figures["ratio"] == pytest.approx(20 / 15)


def test_a_sweep_with_a_trial_that_is_not_complete_is_not_measured(tmp_path):
    with pytest.raises(UserError, match="not all of its 1 planned trials are complete"):
        sweep_cost.read(sweep_folder(tmp_path, trial("00", "16", 7.0, 6.0, state="diverged")))


def test_a_population_is_compared_with_the_trials_of_its_own_round():
    def swept(seconds: float, steps: float, said: tuple[str, ...] = ()) -> Swept:
        rows = [{"train_seconds": steps / 2, "compile_seconds": 1.0, "eval_seconds": 0.5}] * 2
        return Swept(rows, seconds, list(said), {"cores": 2})

    alone = [swept(40.0, 30.0), swept(20.0, 10.0), swept(30.0, 20.0)]
    together = [swept(20.0, 15.0), swept(20.0, 20.0), swept(20.0, 10.0, ("population of 2 x cnn: chosen",))]
    record = population_cost.figures({"small": {ALONE: alone, "auto": together}})
    assert record["cases"]["small"]["ways"]["auto"]["ratios"]["total_seconds"] == [2.0, 1.0, 1.5]
    first, second = population_cost.table(record).splitlines()[2:]
    assert first == "| small: 2 trials, one after another | 30.0 | 20.0 | 2.0 |  |  |"
    assert second == "| small: population, auto | 20.0 | 15.0 | 2.0 | 1.50 (1.00 to 2.00) | 2.00 (0.50 to 2.00) |"
    assert "- small: population of 2 x cnn: chosen" in population_cost.markdown(record | report.provenance("b", {}))


def test_explanations_are_timed_in_turns_and_a_long_one_has_a_round_less():
    def timed(ours, theirs, rounds, seconds):
        calls = []
        workers = {
            name: SimpleNamespace(run=lambda steps, name=name, took=took: calls.append((name, steps)) or took * steps)
            for name, took in (("jaxcnn", ours), ("torch", theirs))
        }
        return explain_cases.turns(workers, rounds, seconds), calls

    timings, calls = timed(0.5, 1.0, rounds=2, seconds=2.0)
    assert calls == [("jaxcnn", 1), ("torch", 1), *[("jaxcnn", 4), ("torch", 2)] * 2]
    assert timings["torch"] == measure.Timing(2, (1.0, 1.0))
    timings, calls = timed(10.0, 20.0, rounds=3, seconds=2.0)
    assert calls == [("jaxcnn", 1), ("torch", 1)] * 2 and timings["jaxcnn"] == measure.Timing(1, (10.0, 10.0))


def test_explanations_by_both_peers_have_their_row(tmp_path):
    case = explain_cases.Case("resnet50", 32, "integrated_gradients", 6, width=1 / 32)
    spec = case.spec(8)
    assert spec["torch_rows"] == 6 and spec["model"]["form"] == "cifar" and spec["layer"] == "block4_3"
    assert explain_cases.Case("vgg16", 224, "gradcam", 50).spec(8) | {"width": 1} == {
        "model": {"name": "vgg16", "form": "imagenet", "width": 1.0}, "side": 224, "images": 8, "method": "gradcam",
        "classes": 10, "layer": "block5_bn3", "points": 50, "torch_rows": 8, "width": 1,
    }  # fmt: skip
    timing = measure.Timing(1, (0.5,))
    memory = {"baseline_bytes": 1, "peak_bytes": 3 * 2**20, "peak_of_steps_bytes": 2**20, "device_peak_bytes": None}
    peers = {
        peer: {
            "seconds_per_image": seconds, "blocks": {"steps": 1, "seconds_per_step": (seconds,)}, "memory": memory,
            "facts": {"rows": 6}, "variant": "eager", "first_build_seconds": 2.0,
        }
        for peer, seconds in (("jaxcnn", 0.5), ("torch", 1.0))
    }  # fmt: skip
    ratios = contest.ratios({"jaxcnn": timing, "torch": measure.Timing(1, (1.0,))}, dict.fromkeys(peers, memory))
    facts = {
        "jaxcnn": {"backend": "cpu"},
        "torch": {"captum": "0.9.0", "torch": "2", "threads": 1, "cpu_capability": "-"},
    }
    record = report.provenance("benchmarks.explain", facts) | {"seconds": 1.0}
    told = {"model": case.model, "side": 32, "method": case.method, "points": 6}
    record["cases"] = [told | {"peers": peers, "ratios": ratios}, {"error": "vgg16: no memory"}]
    text = explain_cases.markdown(record)
    assert (
        "| resnet50 at 32 pixels, integrated_gradients of 6 points | 500 | 6 | 1,000 | 6 | eager | **2.00** (2" in text
    )
    assert text.endswith("Failed: vgg16: no memory")
    assert explain_cases.line(record["cases"][0]) == (
        "jaxcnn 500 ms, Captum 1,000 ms an image (eager): 2.00 times as fast, 1.00 of its memory"
    )


def test_jaxcnns_side_explains_a_network_of_random_weights():
    for method in ("gradcam", "integrated_gradients"):
        spec = explain_cases.Case("vgg16", 32, method, 3).spec(8)
        small = {"model": {"name": "cnn", "width": 1 / 16}, "side": 8, "layer": "bn3"}  # it compiles in a moment
        task = jaxcnn_explain.build(spec | small)
        task.run(1)
        assert task.facts() == {"rows": {"gradcam": 8, "integrated_gradients": 3}[method], "layer": "bn3"}
