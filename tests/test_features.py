"""What a network sees: features as files, nearest images, and the classifier that is fitted to them."""

import json

import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.train import features, predict, probe, trained
from tests import digits, runs


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
    assert features.nearest(np.zeros((1, 7)), among, 2)[1].tolist() == [[0, 0]]


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
