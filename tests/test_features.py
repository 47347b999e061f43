"""What a network sees: features as files, nearest images, and the classifier that is fitted to them."""

import dataclasses
import json
import runpy

import jax
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import selection
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import features, predict, probe, seals, setup, starting, trained
from tests import digits, runs, small


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of few steps."""
    folder = tmp_path_factory.mktemp("features") / "run"
    digits.run(folder, run={"steps": 20})
    return folder


@pytest.fixture(scope="module")
def network(run):
    return trained.load(run, "last", "", 1)[0]


@pytest.fixture(scope="module")
def splits(network):
    return open_splits(network.config.data, network.config.task)


@pytest.fixture(scope="module")
def seen(network, splits):
    return {name: features.of_split(network, getattr(splits, name)) for name in ("train", "val")}


def test_the_outputs_are_the_classifier_of_the_features(network, splits, seen):
    head = network.variables["params"]["classifier"]
    outputs = seen["val"].values @ np.asarray(head["kernel"]).T + np.asarray(head["bias"])
    theirs = predict.outputs_of(network, splits.val.read(np.arange(64)))
    # Sums of 16 products round at 6e-8 each.
    np.testing.assert_allclose(outputs[:64], theirs, rtol=1e-5, atol=1e-5)
    assert seen["val"].values.shape == (200, 16) and len(seen["train"].values) == len(splits.train)


def test_a_layer_may_be_named_and_its_map_is_one_row(network, splits):
    first = features.of_split(network, splits.val, "conv1")
    assert first.values.shape == (200, 8 * 8 * 8)
    with pytest.raises(UserError, match="no layer 'conv9'"):
        features.of_split(network, splits.val, "conv9")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_file_has_names_labels_and_features_to_the_bit(seen, tmp_path, suffix):
    path = tmp_path / f"seen{suffix}"
    features.write(seen["val"], path)
    if suffix == ".npz":
        again = features.read(path)
        np.testing.assert_array_equal(again.values, seen["val"].values)
        np.testing.assert_array_equal(again.targets, seen["val"].targets)
        assert again.names == seen["val"].names and again.class_names == seen["val"].class_names
        return
    from pyarrow import parquet

    table = parquet.read_table(path).to_pydict()
    np.testing.assert_array_equal(np.array(table["features"], np.float32), seen["val"].values)
    assert table["name"] == list(seen["val"].names)
    assert table["label"] == [seen["val"].class_names[k] for k in seen["val"].targets]


def test_what_is_no_file_of_features_is_refused_in_one_line(tmp_path):
    (tmp_path / "no.npz").write_bytes(b"no")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "number.npz", features=np.zeros((1, 2)), names=np.array(3))
    for name in ("no.npz", "other.npz", "absent.npz", "array.npy", "number.npz"):
        with pytest.raises(UserError, match="is no npz file of --mode=embed") as caught:
            features.read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"it has no array features and no array names$"):
        features.read(tmp_path / "other.npz")
    np.savez(tmp_path / "unnamed.npz", features=np.zeros((1, 2)), names=np.array(["a"]), labels=np.zeros(1, int))
    with pytest.raises(UserError, match=r"it has no array class_names$"):
        features.read(tmp_path / "unnamed.npz")
    with pytest.raises(UserError, match=r"must end in \.npz or \.parquet"):
        features.check(tmp_path / "seen.csv")


def test_the_nearest_rows_are_those_of_the_smallest_angle():
    rng = np.random.default_rng(0)
    queries, among = rng.standard_normal((5, 7)), rng.standard_normal((30, 7))
    places, similar = features.nearest(queries, 3.5 * among, 4)
    for query, row, values in zip(queries, places, similar, strict=True):
        cosines = [query @ one / np.linalg.norm(query) / np.linalg.norm(one) for one in among]
        assert list(row) == sorted(range(30), key=lambda k: -cosines[k])[:4]
        np.testing.assert_allclose(values, np.sort(cosines)[::-1][:4], rtol=1e-12)
    assert features.nearest(np.zeros((1, 7)), among, 2)[1][0].tolist() == [0, 0]


def test_of_equally_near_rows_the_first_come_first_and_rows_may_be_left_out():
    rng = np.random.default_rng(0)
    among = rng.integers(0, 2, (200, 3)).astype(np.float32)  # eight directions, so nearly all rows tie
    queries = rng.standard_normal((150, 3)).astype(np.float32)
    left_out = [rng.choice(200, k % 7, replace=False) for k in range(150)]
    norms = np.maximum(np.linalg.norm(among.astype(np.float64), axis=1), 1e-300)
    places, similar = features.nearest(queries, among, 9, left_out)
    for query, absent, row, values in zip(queries, left_out, places, similar, strict=True):
        cosines = among.astype(np.float64) @ query / norms / np.linalg.norm(query.astype(np.float64))
        wanted = [k for k in np.lexsort((np.arange(200), -cosines.round(12))) if k not in absent][:9]
        assert list(row) == wanted
        np.testing.assert_allclose(values, cosines[wanted], rtol=1e-6)
    places, similar = features.nearest(queries[:1], among[:3], 9, [[1]])
    assert sorted(places[0]) == [0, 2] and len(similar[0]) == 2
    assert len(features.nearest(queries[:1], among[:1], 9, [[0]])[0][0]) == 0


def test_a_duplicate_in_another_split_is_a_neighbour_whatever_its_place(network):
    images, _ = small.split(12, channels=1, classes=10)
    splits = open_splits(configs.Data(source="digits", val_examples=200))
    values = features.of_pixels(network, images)
    train = features.Features(values, tuple(selection.name_in_set(splits.train, k) for k in range(12)))
    test = features.Features(values, tuple(selection.name_in_set(splits.test, k) for k in range(12)))
    assert not set(train.names) & set(test.names) and train.names[0].startswith("train image ")
    for row, found in enumerate(features.neighbours(test, train, 3)):
        assert (found["neighbours"][0]["file"], found["neighbours"][0]["similarity"]) == (train.names[row], 1.0)
    renamed = features.Features(values[::-1], train.names)  # a set of another origin, with the same names
    assert [found["neighbours"][0]["similarity"] for found in features.neighbours(train, renamed, 3)] == [1.0] * 12
    repeated = features.Features(values[[0, 0, 0, 1, 2]], (*[train.names[0]] * 3, *train.names[1:3]))
    (first, *_) = features.neighbours(repeated, repeated, 2)
    assert [each["file"] for each in first["neighbours"]] in (list(train.names[1:3]), list(train.names[2:0:-1]))


def test_an_image_is_not_its_own_neighbour_and_others_have_their_class(seen):
    results = features.neighbours(seen["val"], seen["val"], 3)
    assert len(results) == 200 and all(len(one["neighbours"]) == 3 for one in results)
    assert all(one["file"] not in [other["file"] for other in one["neighbours"]] for one in results)
    names = seen["val"].class_names
    labels = {name: names[k] for name, k in zip(seen["val"].names, seen["val"].targets, strict=True)}
    assert all(other["label"] == labels[other["file"]] for one in results for other in one["neighbours"])
    same = np.mean([one["neighbours"][0]["label"] == labels[one["file"]] for one in results])
    assert same > 0.5  # by chance 0.1
    assert "(" in features.in_words(results[0])
    with pytest.raises(UserError, match="of another network or layer"):
        features.neighbours(seen["val"], features.Features(np.zeros((2, 3), np.float32), ("a", "b")), 1)


def test_the_command_writes_features_and_tells_neighbours(run, tmp_path):
    def command(*arguments):
        return runs.run(f"--workdir={run}", "--mode=embed", "--devices=1", *arguments)

    file, told = tmp_path / "val.npz", tmp_path / "told.json"
    code, output = command("--split=val", f"--out={file}")
    assert code == 0, output
    assert features.read(file).values.shape == (200, 16)
    code, output = command("--split=val", f"--among={file}", "--neighbours=2", f"--json={told}")
    assert code == 0, output
    assert len(json.loads(told.read_text())) == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "needs --out="),
        (("--neighbours=1", "--images=x", "--split=val"), "not both"),
        (("--out=a.npz", "--among=a.npz"), "--among is for --neighbours"),
        (("--out=no.csv",), "must end in .npz or .parquet"),
    ],
)
def test_flags_of_embed_that_make_no_sense_are_refused_in_one_line(arguments, words, run):
    code, output = runs.run(f"--workdir={run}", "--mode=embed", "--devices=1", *arguments)
    assert (code, len(output.splitlines())) == (2, 1) and words in output


def test_logistic_regression_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    values = rng.standard_normal((90, 4)) + labels[:, None]
    kernel, bias = probe.logistic(values, labels, 3, penalty=0.01)
    theirs = LogisticRegression(C=1 / (0.01 * 90), tol=1e-10, max_iter=1000).fit(values, labels)
    # Both stop where the gradient is below 1e-7 times the curvature, which is at least the penalty, 0.01: 1e-5.
    np.testing.assert_allclose(kernel, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4)


def test_features_of_any_scale_and_without_spread_are_fitted():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    values = np.concatenate([1e4 + 1e-2 * (rng.standard_normal((60, 3)) + 4 * np.eye(3)[labels]), np.ones((60, 1))], 1)
    kernel, bias, penalty, accuracy = probe.choose(values, labels, (values, labels), 3, probe.PENALTIES)
    assert accuracy == 1 and penalty == probe.PENALTIES[0] and np.isfinite(kernel).all()
    assert ((values @ kernel.T + bias).argmax(1) == labels).all()


def test_weights_in_a_fit_are_those_of_scikit_learn_and_count_as_repeated_examples_do():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    values, of_each = rng.standard_normal((90, 4)) + labels[:, None], np.array([1.0, 2, 5])[labels]
    kernel, _ = probe.logistic(values, labels, 3, penalty=0.01, of_each=of_each)
    theirs = LogisticRegression(C=1 / (0.01 * of_each.sum()), tol=1e-10, max_iter=1000)
    theirs.fit(values, labels, sample_weight=of_each)
    # As without weights: 1e-7 / 0.01 = 1e-5.
    np.testing.assert_allclose(kernel, theirs.coef_, atol=1e-4)
    again = np.repeat(np.arange(90), of_each.astype(int))
    np.testing.assert_allclose(kernel, probe.logistic(values[again], labels[again], 3, penalty=0.01)[0], atol=1e-4)


def test_features_that_do_not_fit_into_memory_at_once_give_the_same_classifier(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 290)
    values = (7 + rng.standard_normal((290, 4)) + labels[:, None]).astype(np.float32)
    whole = probe.choose(values, labels, (values, labels), 3, (1e-1, 1e-2))
    monkeypatch.setattr(probe, "MOST_BYTES", 8 * 4 * 100)
    assert [len(values[part]) for part in probe._parts(values)] == [100, 100, 90]
    parts = probe.choose(values, labels, (values, labels), 3, (1e-1, 1e-2))
    # As above, both stop within 1e-5 of the least loss, for features of deviation 1.
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-4)
    assert parts[2:] == whole[2:]


def test_a_fit_counts_weights_of_classes_and_the_adjustment_of_logits(run, splits, seen):
    init = configs.Init(source=f"workdir:{run}", head="fitted", weights="ema", penalty=1e-3)
    task = configs.Task(class_weights="auto", weights_by_name=(("3", 4.0),), logit_adjustment=2.0, focal_gamma=1.0)
    config, mesh, told = digits.config(init=init, task=task), meshes.make_mesh(1), []
    found = setup.on(config, splits, mesh)
    start = starting.of(config, found.spec, splits, None)
    with small.programs_kept():
        state = programs.init_state(found.spec, mesh)(make_hyper(config))
        state = starting.begin(start, found, state, None, told.append)
        constants = found.constants(jax.device_put(Constants(*map(np.float32, start.normal)), meshes.replicated(mesh)))
        state = probe.fitted(found, state, constants, told.append)
    labels = seen["train"].targets
    counts = np.bincount(labels)
    of_classes = np.where(np.arange(10) == 3, 4.0, 10 / counts / (1 / counts).sum()).astype(np.float32)
    kernel, bias, _, _ = probe.choose(seen["train"].values, labels, None, 10, (1e-3,), of_classes[labels])
    made = state.params["classifier"]
    # Class weights in float32, as in training.
    np.testing.assert_allclose(made["kernel"], kernel, atol=1e-4 * np.abs(kernel).max())
    less = 2 * np.log(counts / counts.sum())
    np.testing.assert_allclose(made["bias"], bias - less, atol=1e-4 * np.abs(bias).max())
    plain = probe.choose(seen["train"].values, labels, None, 10, (1e-3,))[0]
    assert np.abs(plain - kernel).max() > 1e-2 * np.abs(kernel).max()
    assert "in training alone: config.task.focal_gamma" in told[-1]
    skipping = dataclasses.replace(config, init=dataclasses.replace(init, skip=("classifier/.*",)))
    with pytest.raises(UserError, match=r"config\.init\.skip='classifier/\.\*' keeps the classifier as it was drawn"):
        starting.of(skipping, found.spec, splits, None)


def test_a_run_may_start_from_the_classifier_that_fits_what_its_network_sees(run, seen, tmp_path, capsys):
    init = configs.Init(source=f"workdir:{run}", head="fitted", weights="ema", penalty=1e-3)
    optim = {"learning_rate": 0.0, "freeze_norm": True, "ema_decay": 0.0}
    summary = digits.run(tmp_path / "probe", init=init, run={"steps": 1}, optim=optim)
    after = trained.load(tmp_path / "probe", "last", "", 1)[0]
    kernel, bias, _, accuracy = probe.choose(
        seen["train"].values, seen["train"].targets, (seen["val"].values, seen["val"].targets), 10, (1e-3,)
    )
    np.testing.assert_array_equal(after.variables["params"]["classifier"]["kernel"], kernel.astype(np.float32))
    np.testing.assert_array_equal(after.variables["params"]["classifier"]["bias"], bias.astype(np.float32))
    # The run computes the same outputs in float32, where at most one of 200 images may be on the other side.
    assert abs(summary["val_last"] - accuracy) <= 1 / 200
    before = trained.load(run, "last", "ema", 1)[0]
    np.testing.assert_array_equal(
        after.variables["params"]["conv3"]["kernel"], before.variables["params"]["conv3"]["kernel"]
    )
    told = f"classifier fitted to {len(seen['train'].names)} training images in "
    assert told in capsys.readouterr().out


def test_head_first_then_all_is_one_variant_of_the_config_for_fine_tuning(root, run, seen, tmp_path):
    """`finetune:probed`: the run begins with the classifier that fits, and then every layer moves."""
    tree = runpy.run_path(str(root / "configs/finetune.py"))["get_config"]("probed")
    tree.init.source = f"workdir:{run}"
    recipe = configs.from_config_dict(tree)
    assert recipe.init.head == "fitted" and set(dict(recipe.optim.layers).values()) == {1.0}
    init = dataclasses.replace(recipe.init, weights="ema", penalty=1e-3)
    optim = {"learning_rate": recipe.optim.learning_rate, "layers": recipe.optim.layers, "ema_decay": 0.0}
    groups = {"init": init, "run": {"steps": 1}}
    digits.run(tmp_path / "still", optim=optim | {"learning_rate": 0.0}, **groups)
    digits.run(tmp_path / "moved", optim=optim, **groups)
    still, moved = (trained.load(tmp_path / name, "last", "", 1)[0].variables for name in ("still", "moved"))
    kernel, bias, *_ = probe.choose(seen["train"].values, seen["train"].targets, None, 10, (1e-3,))
    np.testing.assert_array_equal(still["params"]["classifier"]["kernel"], kernel.astype(np.float32))
    np.testing.assert_array_equal(still["params"]["classifier"]["bias"], bias.astype(np.float32))
    for (name, before), (_, after) in zip(seals.leaves(still), seals.leaves(moved), strict=True):
        changes = np.abs(np.asarray(after) - np.asarray(before)).max()
        # One step of rate 0.01 along a gradient: it is a change, but not a new start.
        assert changes > 0 or name.endswith(("mean", "var")), name
        assert not name.startswith("params/") or changes < 0.1, name


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"init": {"head": "fitted"}}, "config.init.head has no effect without config.init.source"),
        ({"init": {"source": "file:a.npz", "penalty": 1.0}}, "config.init.penalty is for config.init.head='fitted'"),
        (
            {"init": {"source": "file:a.npz", "head": "fitted"}, "task": {"name": "regression"}},
            "config.init.head='fitted' is for config.task.name='classification' only",
        ),
        (
            {"init": {"source": "file:a.npz", "head": "fitted"}, "data": {"protocol": "full"}},
            "config.init.penalty must be above 0",
        ),
    ],
)
def test_a_fit_that_makes_no_sense_is_refused_in_one_line(groups, words):
    with pytest.raises(ConfigError) as caught:
        configs.from_config_dict(groups)
    (line,) = str(caught.value).splitlines()
    assert words in line
