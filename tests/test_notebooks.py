"""Each notebook of `notebooks/` runs from its second cell to its pictures, in small.

All run in one kernel, which imports JAX once. Each begins without a name of those before it, in a folder of its own.
"""

import json
import pathlib
import re
from collections.abc import Iterator

import nbclient
import nbformat
import numpy as np
import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from tests import runs

pytestmark = pytest.mark.unoptimised

FOLDER = runs.ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SMALL = {  # in place of the cell with the tag "parameters", which must set the same names
    "chest_xrays": 'network, epochs = "cnn", 1',
    "explain": "epochs, examples = 2, 3",  # as many as the quickstart, whose programs it then has
    "quickstart": "epochs = 2",
    "sweep": "epochs = 1",
    "your_images": "per_class, epochs = 40, 2",
    "your_network": "epochs = 1",
}
SEEDS = "seeds=2", "seeds=1"  # of a sweep, in place of the first
LEFT_OUT = {"install", "download"}
# The first cell. Programs are kept as in commands, but for those of networks and losses that a notebook defines.
BEGIN = """%reset -f
import os
from jaxcnn.learn import executables
from jaxcnn.machine import mesh
mesh.prepare_backend()
executables.keep({keep})
os.chdir({folder!r})
del os, executables, mesh
"""
OWN_CODE = {"your_network"}
SECONDS = 240
COLAB = "https://colab.research.google.com/github/jaxcnn/jaxcnn/blob/main/notebooks/"


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> nbformat.NotebookNode:
    (cell,) = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]
    return cell


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in str(output.get("data", "")) for output in outputs(notebook))


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in outputs(notebook))


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """A kernel for all notebooks; the first of them starts it."""
    manager = AsyncKernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(runs.ROOT))
        patched.setenv("PYTHONWARNINGS", "ignore")
        patched.setenv("JAXCNN_HUGE_PAGES", "off")
        yield manager
        if manager.has_kernel:
            run_sync(manager.shutdown_kernel)(now=True)


def in_small(name: str, folder: pathlib.Path, kernel: AsyncKernelManager) -> nbformat.NotebookNode:
    """The notebook, executed without its installation and downloads, and with small parameters."""
    notebook = read(name)
    parameters = tagged(notebook, "parameters")
    assert parameters.source.partition("=")[0] == SMALL[name].partition("=")[0]
    parameters.source = SMALL[name]
    notebook.cells = [cell for cell in notebook.cells if not LEFT_OUT & {*cell.metadata.get("tags", ())}]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            if name == "sweep" and "get_sweep" in cell.source:
                assert SEEDS[0] in cell.source
                cell.source = cell.source.replace(*SEEDS)
    begin = BEGIN.format(keep=name not in OWN_CODE, folder=str(folder))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(begin))
    return nbclient.NotebookClient(notebook, kernel, timeout=SECONDS).execute()


def test_the_quickstart_trains_predicts_stops_and_goes_on_to_the_same_bits(tmp_path, kernel):
    notebook = in_small("quickstart", tmp_path, kernel)
    assert "stopped with a checkpoint of step 2" in printed(notebook)
    assert "all weights have the same bits: True" in printed(notebook)
    assert pictures(notebook) == 3, "curves, confusion matrix, digits"


def test_a_folder_of_images_is_checked_trained_on_and_predicted(tmp_path, kernel):
    notebook = in_small("your_images", tmp_path, kernel)
    assert "circle" in printed(notebook)
    assert pictures(notebook) == 3, "curves, confusion matrix, photos"
    assert json.loads((tmp_path / "runs" / "photos" / "summary.json").read_text())["epochs"] >= 2


def test_a_sweep_ends_in_a_report_and_its_best_trial(tmp_path, kernel):
    notebook = in_small("sweep", tmp_path, kernel)
    assert "4 of 4 runs finished" in printed(notebook)
    assert pictures(notebook) >= 1, "accuracy against the learning rate"
    assert len(list((tmp_path / "runs" / "rates" / "trials").iterdir())) == 4


def test_a_network_and_a_loss_of_a_notebook_are_trained(tmp_path, kernel):
    notebook = in_small("your_network", tmp_path, kernel)
    assert pictures(notebook) == 2, "curves, features"
    accuracies = re.findall(r"^0\.\d+$", printed(notebook), re.MULTILINE)
    assert len(accuracies) == 2 and "(500, 24)" in printed(notebook)


def test_a_trained_run_is_explained_scored_and_shown_on_a_page(tmp_path, kernel):
    notebook = in_small("explain", tmp_path, kernel)
    assert pictures(notebook) == 4, "Grad-CAM, integrated gradients, randomisation, page"
    assert "guided_backprop: rank correlation " in printed(notebook) and "deletion (lower)" in printed(notebook)
    assert "Guided backpropagation" in (tmp_path / "explained" / "index.html").read_text()


def test_x_rays_are_screened_at_a_threshold_of_validation(tmp_path, kernel):
    draw, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 128), ("val", 64), ("test", 64)):  # in the layout of MedMNIST's file
        labels = arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
        noise = draw.integers(0, 120, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_images"] = noise + 30 * labels[:, :, None]
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    notebook = in_small("chest_xrays", tmp_path, kernel)
    assert pictures(notebook) >= 3, "X-rays, curves, ROC, and explanations if any are wrong"
    assert re.search(r"^test +sensitivity \d+\.\d%  specificity \d+\.\d%$", printed(notebook), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_in_colab_installs_and_keeps_small_outputs_without_errors(name):
    notebook = read(name)
    assert f"({COLAB}{name}.ipynb)" in notebook.cells[0].source
    assert "pip install" in tagged(notebook, "install").source
    kept = json.dumps(outputs(notebook))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert pictures(notebook) and len(kept) < 400_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", kept), "paths of one machine"


@pytest.mark.parametrize(
    "plugin, extras", [("", "all"), ("jax_cuda12_plugin", "all,cuda12"), ("jax_cuda13_plugin", "all,cuda13")]
)
def test_the_installation_names_the_cuda_version_that_is_there(plugin, extras, monkeypatch):
    (source,) = {tagged(read(name), "install").source for name in NAMES}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == plugin else None)
    names: dict[str, object] = {}
    exec(source.partition("%pip")[0], names)
    assert names["extras"] == extras and '"jaxcnn[{extras}] @ git+https://' in source


def test_every_notebook_is_run_by_a_test():
    assert sorted(SMALL) == NAMES
