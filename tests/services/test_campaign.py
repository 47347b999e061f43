"""The whole campaign in small, where TensorFlow cannot be imported: some thirty processes, minutes on two cores."""

import json

import numpy as np
import pytest

from benchmarks import campaign_page
from tests import runs

pytestmark = pytest.mark.services

BLOCKER = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec


def find_spec(name, path=None, target=None):
    hidden = name.partition(".")[0] in ("tensorflow", "tensorflow_datasets")
    return None if hidden else found(name, path, target)


PathFinder.find_spec = find_spec
"""
SCRIPT = """
row = "|  {:>6}  |  {:>5}  |     0.9000  |   {:.4f}  |  {:>11}  |  {:12.4f}  |"
for run in ["warmup", *range(200)]:
    print(row.format(run, 0, 0.5, "", 1.0))
    print(row.format("", "eval", 0.5, "0.6000", 1.5))
"""


def test_everything_runs_in_small_without_tensorflow(tmp_path):
    place = tmp_path / "a folder"
    (place / "site").mkdir(parents=True)
    (place / "site" / "sitecustomize.py").write_text(BLOCKER)
    (place / "airbench94_muon.py").write_text(SCRIPT)
    draws = np.random.default_rng(0)
    for name, classes in (("cifar10", 10), ("cifar100", 20)):
        images = draws.integers(0, 256, (2, 128, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(128) % classes
        np.savez(
            place / f"{name}.npz", train_images=images[0], train_labels=labels, test_images=images[1],
            test_labels=labels, names=[str(number) for number in range(classes)],
        )  # fmt: skip
    given = [f"--cifar10={place}/cifar10.npz", f"--cifar100={place}/cifar100.npz", f"--torch_scripts={place}"]
    out = place / "out"
    code, output = runs.run(
        "--small", f"--out={out}", "--minutes=60", *given, module="benchmarks.campaign", fresh=True, seconds=1200,
        PYTHONPATH=str(place / "site"), JAXCNN_HUGE_PAGES="off", **runs.UNOPTIMISED,
    )  # fmt: skip
    assert code == 0, output + "".join(path.read_text() for path in out.glob("*/log.txt"))
    record = json.loads((out / "campaign.json").read_text())
    results = {part["name"]: part["result"] for part in record["parts"]}
    assert {part["state"] for part in record["parts"]} == {"done"}
    pairs = results["determinism"]["determinism"]["pairs"]
    assert [(pair["pair"], pair["equal"]) for pair in pairs] == [("two starts", True), ("stopped and resumed", True)]
    assert results["determinism"]["determinism"]["starts"]["resumed"]["stopped_at"]
    figures = results["speedruns-cifar10"]["speedruns"]["peers_figures"]
    assert [(each["peer"], len(each["seconds"])) for each in figures] == [
        ("jaxcnn", 2), ("jaxcnn", 2), ("airbench94_muon.py", 2)
    ]  # fmt: skip
    assert all(seconds > 0 for each in figures[:2] for seconds in each["reset_seconds"])
    assert {each["peer"] for each in results["speedruns-cifar100"]["speedruns"]["peers_figures"]} >= {"jaxcnn"}
    trained = results["cells"]["cells"]["runs"]
    assert [(run["set"], run["seed"], run["together"]) for run in trained] == [
        (name, seed, True) for name in ("cifar10", "cifar100") for seed in (0, 1)
    ]
    page = (out / "campaign.md").read_text()
    for part in record["parts"]:
        assert f"| {part['name']} | done |" in page
    assert "| alexnet, cifar100 |" in page and "not trained yet" not in page
    assert campaign_page.JSON in output
