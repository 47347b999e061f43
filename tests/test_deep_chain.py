"""Deep Compression with its training: two ordinary runs, then the usual steps; a second call trains nothing."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcnn.compress import chain, compressing
from jaxcnn.config import UserError
from jaxcnn.train import assess, loop, seals, trained
from jaxcnn.train.interrupts import Interrupted
from jaxcnn.weights import files
from tests import digits, small

pytestmark = pytest.mark.unoptimised

OPTIONS = compressing.Options(
    conv_bits=4, dense_bits=3, sparsity=0.8, prune_epochs=1.0, prune_rate=0.5, tune_epochs=0.5, card=False
)
STEPS = [
    "as trained: float32",
    "pruned, and trained: float32 and indices",
    "shared values and indices",
    *(f"these weights as {form}" for form in ("float32", "float16", "int8 per channel")),
    "trained shared values and indices",
    "Huffman words: a.jxc",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "run"
    digits.run(folder)
    return folder


def compressed(folder, said, **changes):
    def train(config, place):
        loop.train(config, place, command=["compress"])

    options = dataclasses.replace(OPTIONS, out=str(folder / "a.jxc"), **changes)
    with small.programs_kept():
        load = lambda: trained.load(folder, trained.TESTED, "", 1)[0]  # noqa: E731
        return compressing.compress(load, folder, options, (), [], said.append, train)


@pytest.fixture(scope="module")
def made(run):
    said = []
    return compressed(run, said), said


def test_each_step_has_a_row_with_the_figures_of_its_own_network(run, made, kept_programs):
    result, said = made
    rows = {row["step"]: row for row in result.figures["steps"]}
    assert list(rows) == STEPS == [line.split(" | ")[0].removeprefix("| ") for line in result.table[2:]]
    told = json.loads((run / "a.jxc.json").read_text())["steps"]
    assert [(row["step"], row["size"], row["figures"]["loss"]) for row in told] == [
        (step, row["size"], row["figures"]["loss"]) for step, row in rows.items()
    ]
    split = None
    for step, folder in ((STEPS[0], run), (STEPS[1], run / "deep" / "pruned"), (STEPS[-1], run / "deep" / "tuned")):
        network, _ = trained.load(folder, trained.TESTED, "", 1)
        split = split or assess.open_split(network, folder, "val", "")[0]
        assert rows[step]["figures"] == network.evaluate(split), step
    assert (
        len({row["figures"]["loss"] for row in result.figures["steps"]}) >= 4
    )  # trained, pruned, shared, trained again
    assert rows[STEPS[0]]["size"] > rows[STEPS[1]]["size"] > rows[STEPS[2]]["size"]
    assert rows[STEPS[-1]]["size"] == (run / "a.jxc").stat().st_size
    assert not any("no weight is zero" in line for line in said)


def test_the_runs_prune_then_train_the_shared_values_and_keep_the_zeros(run, made):
    pruned, tuned = (
        seals.on_host(trained.load(run / "deep" / name, trained.TESTED, "", 1)[0].variables)
        for name in ("pruned", "tuned")
    )
    kernels = [name for name, each in pruned.items() if each.ndim > 1]
    zeros, weights = (
        sum(function(pruned[name]) for name in kernels) for function in (lambda x: np.sum(x == 0), np.size)
    )
    assert zeros / weights == pytest.approx(0.8, abs=0.01)
    decoded, _ = files.read(run / "a.jxc")
    for name in kernels:
        assert np.array_equal(pruned[name] == 0, tuned[name] == 0)
        most = 2 ** (3 if pruned[name].ndim == 2 else 4)
        assert len(np.unique(tuned[name][tuned[name] != 0])) <= most
        assert np.array_equal(decoded[name], tuned[name])
    assert max(len(np.unique(pruned[name])) for name in kernels) > 17


def test_a_second_call_trains_nothing_and_another_sparsity_is_refused(run, made, monkeypatch):
    seen, before = digits.call_lengths(monkeypatch), (run / "a.jxc").read_bytes()
    again = compressed(run, [])
    assert not seen and again.figures == made[0].figures and (run / "a.jxc").read_bytes() == before
    with pytest.raises(UserError, match=r"prune\.sparsity"):
        compressed(run, [], sparsity=0.7)


def test_wrong_options_are_refused_before_the_network_is_loaded(tmp_path):
    for given, words in (
        ({"sparsity": 1.0}, "--sparsity=1: the share of zeros must be at least 0 and below 1"),
        ({"sparsity": float("nan")}, "--sparsity=nan: the share"),
        ({"sparsity": 0.0}, "--prune_epochs is for --sparsity above 0; leave it out"),
        ({"prune_epochs": 0.0}, "--prune_epochs=0: it must be above 0"),
        ({"tune_rate": float("inf")}, "--tune_rate=inf: it must be above 0"),
        ({"tune_epochs": -1.0}, "--tune_epochs=-1: it must be above 0, or 0 for none"),
        ({"method": "filters"}, "--sparsity is for --method=deep, not filters; leave it out"),
    ):
        with pytest.raises(UserError) as caught:
            compressing.check(dataclasses.replace(OPTIONS, **given), {"sparsity", "prune_epochs"})
        assert words in str(caught.value)


def test_a_training_that_is_stopped_stops_the_whole(run, tmp_path):
    def train(config, place):
        raise Interrupted(f"{place.name} was stopped")

    network, _ = trained.load(run, trained.TESTED, "", 1)
    split, training = assess.open_split(network, run, "val", "")[0], chain.Training(0.8, 1.0, 0.5, 1.0, 1e-4)
    with pytest.raises(Interrupted, match="pruned was stopped"):
        chain.train(network, tmp_path, split, compressing.bits_of(OPTIONS), training, train, str)
