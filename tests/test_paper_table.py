"""`python -m benchmarks.paper`: the paper's table beside the kept runs."""

import json
import tomllib

import pytest

from benchmarks import paper
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
    (folder / "config.json").write_text(
        json.dumps({"seed": seed, "model": {"name": model}, "data": {"source": source}})
    )
    environment = {
        "command": ["main.py", "--config=a.py", f"--config.data.source={source}", "--workdir=/home/somebody/run"],
        "device": "cpu", "devices": 1, "cores": 2, "processor": "X", "packages": {"jax": "0.10"}, "commit": "c0ffee",
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


def test_what_is_no_cell_of_the_table_and_a_page_without_marks_are_refused(tmp_path):
    with pytest.raises(UserError, match="airbench on cifar10 is no cell of the table"):
        paper.keep(workdir(tmp_path / "run", model="airbench"), tmp_path)
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(UserError, match="lacks <!-- python"):
        paper.write_between(tmp_path / "page.md", "table")
    with pytest.raises(UserError, match="only a finished run can be kept"):
        paper.keep(tmp_path, tmp_path)
