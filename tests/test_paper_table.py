"""`python -m benchmarks.paper`: the paper's table beside the kept runs."""

import json
import tomllib

import pytest

import jaxcnn
import jaxcnn.config as configs
from benchmarks import paper, paper_answers
from jaxcnn.config import UserError
from jaxcnn.reporting.findings import PUBLISHED
from jaxcnn.train import workdir as workdir_files
from tests import runs


def workdir(folder, seed=0, accuracy=0.9, model="vgg16", hours=2.0):
    """A finished run with the files that are kept."""
    folder.mkdir(parents=True)
    source = "npz:/home/somebody/cifar10.npz"
    told = {
        "headline": "ema_top1_accuracy",
        "test": {"ema_top1_accuracy": accuracy, "ema_tta_top1_accuracy": accuracy + 0.01},
        "wall_seconds": 3600 * hours, "epochs": 20.0, "dtype": "float32", "data": f"{source} train",
    }  # fmt: skip
    workdir_files.write_sealed(folder / "summary.json", told)
    config = jaxcnn.config(f"{model}_cifar10:cores" if model in paper.MODELS else model, data=source, seed=seed)
    (folder / "config.json").write_text(json.dumps(configs.to_dict(configs.from_config_dict(config))))
    environment = {
        "command": ["main.py", "--config=a.py", f"--config.data.source={source}", "--workdir=/home/somebody/run"],
        "device": "cpu", "devices": 1, "processes": 1, "cores": 2, "processor": "X",
        "packages": {"jax": "0.10"}, "commit": "c0ffee",
        "hosts": ["secret"], "platform": "Linux-secret", "earlier": [],
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment))
    for name in paper.COPIED:
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def published():
    return tomllib.loads(PUBLISHED.read_text())


def test_a_kept_run_tells_its_command_and_machine_without_paths_and_host_names(tmp_path):
    (tmp_path / "results").mkdir()
    kept = paper.keep(workdir(tmp_path / "run", seed=3), tmp_path / "results", "a busy machine")
    assert kept.name == "vgg16_cifar10_cores_seed3"
    for file in kept.iterdir():
        assert "secret" not in file.read_text() and "somebody" not in file.read_text(), file
    assert workdir_files.read_sealed(kept / "summary.json")["data"] == "npz:cifar10.npz train", (
        "its checksum is of what it says now"
    )
    (run,) = paper.kept_runs(tmp_path / "results")
    assert run.behind == (
        "`python -m jaxcnn.main --config=a.py --config.data.source=npz:cifar10.npz`, 2 cores of an X, jax 0.10, "
        "float32, commit `c0ffee`; a busy machine"
    )


def test_seeds_of_a_cell_are_one_figure_with_its_spread_and_other_cells_say_that_they_are_not_measured(
    tmp_path, published
):
    (tmp_path / "results").mkdir()
    for seed, accuracy in enumerate((0.9, 0.92, 0.94)):
        paper.keep(workdir(tmp_path / f"run{seed}", seed, accuracy, hours=seed + 1), tmp_path / "results")
    text = paper.table(list(paper.kept_runs(tmp_path / "results")), published, "../results/")
    (line,) = [line for line in text.splitlines() if line.startswith("| CIFAR-10, VGG16")]
    assert "| 92.7 % in 2.5 h |" in line
    assert "| [92.00 ± 2.00 %](../results/vgg16_cifar10_cores/) in 2.0 h; with test-time" in line
    assert "augmentation 93.00 ± 2.00 %; 3 seeds |" in line
    assert text.count(paper.NOT_MEASURED) == 11 + 1 and "11 of 12 cells are not measured." in text
    assert "below 68.9 % in 2.5 h" in text
    paper.draw(list(paper.kept_runs(tmp_path / "results")), published, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 10_000


def test_the_pages_have_the_table_of_what_is_kept(published):
    kept = list(paper.kept_runs(runs.ROOT / "results"))
    assert kept
    tables = {page: paper.table(kept, published, to) for page, to in paper.PAGES.items()}
    for page, table in (tables | {paper.FRONT_PAGE: paper.short_table(kept, published)}).items():
        assert table in (runs.ROOT / page).read_text(), "python -m benchmarks.paper"
    answers = paper_answers.table(paper.cells(kept), published)
    assert answers in (runs.ROOT / paper.ANSWERS_PAGE).read_text(), "python -m benchmarks.paper"


def test_a_cell_is_better_than_the_paper_only_beyond_its_interval(tmp_path, published):
    (tmp_path / "results").mkdir()
    for model, accuracies in (("vgg16", (0.93,)), ("alexnet", (0.88, 0.89, 0.9))):
        for seed, accuracy in enumerate(accuracies):
            run = workdir(tmp_path / f"{model}{seed}", seed, accuracy, model, hours=2.0)
            paper.keep(run, tmp_path / "results")
    text = paper_answers.table(paper.cells(list(paper.kept_runs(tmp_path / "results"))), published)
    # One seed: 1.96 (0.93 0.07 / 10,000)^0.5. Three seeds: 4.303 0.01 / 3^0.5, of Student's t with two degrees.
    alexnet, vgg16 = (line for line in text.splitlines() if line.startswith("| CIFAR-10"))
    assert "| not shown: +0.30 ± 0.50 points | yes: 0.80 times the paper's 2.5 h | not known |" in vgg16
    assert "| not shown: +1.70 ± 2.48 points | no: 1.33 times the paper's 1.5 h | not known |" in alexnet
    assert "Not measured: CIFAR-10, AlexNet, one GPU; " in text


def test_what_is_no_cell_of_the_table_and_a_page_without_marks_are_refused(tmp_path):
    with pytest.raises(UserError, match="airbench on cifar10 is no cell of the table"):
        paper.keep(workdir(tmp_path / "run", model="airbench"), tmp_path)
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(UserError, match="lacks <!-- python"):
        paper.write_between(tmp_path / "page.md", "table")
    with pytest.raises(UserError, match="only a finished run can be kept"):
        paper.keep(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        (
            "config",
            {"model": {"width": 0.0625}},
            r"column 'two CPU cores': config.model.width=0.0625 is not that of conf",
        ),
        ("config", {"data": {"protocol": "full"}}, r"config.data.protocol='full' holds no validation out"),
        ("environment", {"cores": 64}, "it had 1 devices, 1 processes and 64 cores"),
        ("environment", {"processes": 8}, "it had 1 devices, 8 processes and 2 cores"),
        ("environment", {"device": "NVIDIA X", "devices": 8}, "column 'one GPU': it had 8 devices"),
    ],
)
def test_a_run_of_another_network_protocol_or_machine_is_not_kept(tmp_path, file, changes, told):
    run = workdir(tmp_path / "run")
    tree = json.loads((run / f"{file}.json").read_text())
    for key, value in changes.items():
        tree[key] = tree[key] | value if isinstance(value, dict) else value
    (run / f"{file}.json").write_text(json.dumps(tree))
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match=told):
        paper.keep(run, tmp_path / "results")
    assert not list((tmp_path / "results").iterdir())


def test_a_kept_run_gives_way_to_no_other_of_its_seed(tmp_path):
    (tmp_path / "results").mkdir()
    first, other = workdir(tmp_path / "first", accuracy=0.9), workdir(tmp_path / "other", accuracy=0.95)
    (other / "metrics.jsonl").write_text("{}")
    kept = paper.keep(first, tmp_path / "results")
    with pytest.raises(UserError, match="has another run of seed 0; remove that first, or train another seed"):
        paper.keep(other, tmp_path / "results")
    assert paper.keep(first, tmp_path / "results", "a new note") == kept
    assert [run.accuracy for run in paper.kept_runs(tmp_path / "results")] == [0.9]
