"""Exported networks answer in their own runtimes as the run does, and damaged files are refused."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export

from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.config import UserError
from jaxcnn.data.batch import Constants
from jaxcnn.deploy import (
    beside,
    card,
    digest,
    exporting,
    kept_figures,
    latency,
    onnx_file,
    predictor,
    runtimes,
    stablehlo,
    verify,
    web,
    web_runtime,
)
from jaxcnn.graphs import graph, lowering
from jaxcnn.machine import instructions
from jaxcnn.models import activations, attention, context
from jaxcnn.models.group_norm import GroupNorm
from jaxcnn.serve.service import Decoded, Service
from jaxcnn.tasks import by_name
from jaxcnn.train import assess, exported, of_facts, predict, seals, trained
from jaxcnn.weights import compressed, files
from tests import digits, runs, small

# The logits go through at most 54 layers, each of sums of at most 700 products, whose roundings of 2^-24 add up like a
# random walk: 54 * sqrt(700) * 2^-24 = 9e-5 of their standard deviation.
TOLERANCE = 1e-4
NETWORKS = {  # each has what no other here has
    "alexnet, imagenet": ({"name": "alexnet", "form": "imagenet", "batch_norm": False, "width": 1 / 32}, 79),
    "resnet20: padded shortcuts": ({"name": "resnet20", "width": 0.25}, 9),
    "resnet18: pooled shortcuts": ({"name": "resnet18", "shortcut": "pooled", "width": 1 / 16}, 9),
    "efficientnet_lite0: depthwise, ReLU6": ({"name": "efficientnet_lite0", "form": "imagenet", "width": 0.25}, 32),
    "squeezenet1_1: joined channels": ({"name": "squeezenet1_1", "width": 0.125}, 18),
    "airbench_residual: GELU": ({"name": "airbench_residual", "width": 1 / 32}, 14),
    **{each: ({"name": "alexnet", "width": 1 / 32, "attention": each}, 16) for each in attention.METHODS},
}


def network(name):
    """A network as a function of images, with drawn weights and statistics, and the side of its images."""
    options, side = NETWORKS[name]
    model = models.build(configs.Model(**options), configs.Norm(), 5)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3))))
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim == 4 else leaf.shape[-1]
        scale = np.sqrt(2 / fan_in) if leaf.ndim > 1 else 0.1
        return (scale * generator.normal(size=leaf.shape)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)

    def function(images):
        with context.portable():
            return model.apply(variables, images, train=False)

    return function, side


def model_of(made, shape, found=("b", "k")):
    from onnx import checker, helper, numpy_helper

    value = lambda name, sizes: helper.make_tensor_value_info(name, 1, sizes)  # noqa: E731
    nodes = [helper.make_node(each.op, each.inputs, each.outputs, **each.attributes) for each in made.nodes]
    constants = [numpy_helper.from_array(array, name) for name, array in made.constants.items()]
    whole = helper.make_graph(nodes, "n", [value("image", ["b", *shape])], [value(made.output, found)], constants)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", onnx_file.OPSET)], ir_version=9)
    checker.check_model(model, full_check=True)
    return model


def session_of(made, shape, found=("b", "k")):
    model = model_of(made, shape, found)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_of_a_network_gives_its_logits_with_batch_norm_folded_and_not(name):
    function, side = network(name)
    images = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    expected = np.asarray(jax.jit(function).lower(images).compile(small.UNOPTIMISED)(images))
    assert expected.std() > 1e-3
    counts = []
    for fold in (True, False):
        image = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
        made = graph.simplified(lowering.lower(function, image, "image"), fold)
        (found,) = session_of(made, (side, side, 3)).run(None, {"image": images})
        assert np.abs(found - expected).max() <= TOLERANCE * expected.std()
        counts.append(len(made.nodes))
    assert counts[0] < counts[1]


ANY_BATCH = {
    **{f"resnet20, {name}": {"name": "resnet20", "width": 0.25, "attention": name} for name in attention.METHODS},
    **{
        name: {"name": name, "width": 1 / 32}
        for name in ("yolo_cnn", "mask_rcnn_cnn", "faster_rcnn_cnn", "unet_small", "convnext_tiny")
    },
    "one's own": {"name": "tests.own_parts:Plain"},
}


@pytest.mark.parametrize("name", ANY_BATCH)
def test_networks_are_traced_for_any_batch_size(name):
    model = models.build(configs.Model(**ANY_BATCH[name]), configs.Norm(), 5)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    (batch,) = export.symbolic_shape("batch")

    def function(variables, images):
        with context.portable():
            return model.apply(variables, images, train=False)

    images = jax.ShapeDtypeStruct((batch, 64, 64, 3), jnp.float32)
    found = jax.eval_shape(function, variables, images)
    assert all(leaf.shape[0] == batch for leaf in jax.tree.leaves(found))


def test_every_activation_and_group_norm_have_a_graph():
    norm = GroupNorm(configs.Norm(name="group", groups=2))
    variables = {"params": {"scale": jnp.array([1.0, 2, 3, 4]), "bias": jnp.array([0.5, 0, 0, -0.5])}}

    def function(images):
        x = norm.apply(variables, images, train=False)
        return jnp.concatenate([each(4 * x).mean((1, 2)) for each in activations.ACTIVATIONS.values()], axis=-1)

    images = np.random.default_rng(1).normal(size=(3, 8, 8, 4)).astype(np.float32)
    wanted = np.asarray(function(images))
    made = graph.simplified(lowering.lower(function, jax.ShapeDtypeStruct((8, 8, 4), jnp.float32), "image"), True)
    (found,) = session_of(made, (8, 8, 4)).run(None, {"image": images})
    assert np.abs(found - wanted).max() <= TOLERANCE * wanted.std()


def test_an_operation_without_operator_is_told():
    with pytest.raises(UserError, match=r"operation 'sort', which cannot be written as ONNX; use --format=stablehlo"):
        lowering.lower(lambda x: jnp.sort(x, axis=1), jax.ShapeDtypeStruct((4, 4, 3), jnp.float32), "image")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with its validation split, and its two exported files."""
    folder = tmp_path_factory.mktemp("deploy")
    digits.run(folder / "run")
    with small.programs_kept():
        network, _ = trained.load(folder / "run", "last", "", 1)
    onnx_file.write(network, folder / "a.onnx")
    stablehlo.write(network, folder / "a.stablehlo")
    return network, assess.open_split(network, folder / "run", "val", "")[0], folder


@pytest.mark.parametrize("name", ["a.onnx", "a.stablehlo"])
def test_a_file_answers_as_the_run_on_the_whole_split(run, name, kept_programs):
    network, split, folder = run
    runtime = runtimes.of_file(folder / name)
    verdict = verify.verify(network, runtime, split, 64)
    assert verdict.examples == len(split) == 200 and verdict.size == (folder / name).stat().st_size
    assert verdict.difference <= TOLERANCE * verdict.scale and verdict.agreement == 1.0
    figures = network.evaluate(split)
    for figure, of_run, of_file in verdict.figures:
        assert (of_run, of_file) == pytest.approx((figures[figure], figures[figure]), rel=1e-5)
    lines = verdict.lines()
    assert "100.00%" in lines[1] and any("top1_accuracy" in line for line in lines)


def test_weights_alone_are_verified_in_the_network_that_they_are_loaded_into(run, tmp_path, kept_programs):
    network, _, folder = run
    said, out = [], tmp_path / "a.safetensors"
    options = exporting.Options("safetensors", "jaxcnn", str(out), verify=True)
    made = exporting.export(lambda: network, folder / "run", options, (), said.append)
    verdict = made.verdict
    assert verdict.examples == 200 and verdict.size == out.stat().st_size and "a.safetensors" in verdict.runtime
    assert verdict.difference <= TOLERANCE * verdict.scale and verdict.agreement == 1.0
    assert verdict.lines()[0] in said and f"- {verdict.lines()[0]}" in made.card.read_text()
    assert not kept_figures.missing(out)
    with pytest.raises(UserError, match=r"must end with \.safetensors"):
        options = dataclasses.replace(options, out=str(tmp_path / "a.bin"))
        exporting.export(lambda: network, folder / "run", options, (), said.append)
    files.write(out, {name: -each for name, each in seals.on_host(network.variables).items()}, exported.facts(network))
    wrong, _ = of_facts.read_beside(out, network)
    arrays = seals.on_host(wrong.variables)  # the weights of the file, not those of the run
    assert all(np.array_equal(arrays[name], -each) for name, each in seals.on_host(network.variables).items())


def test_a_file_that_is_slower_than_float32_says_so():
    told = verify.Verdict("it", 1, 0.0, 1.0, 1.0, [], 50, 0.002, (200, 0.001))
    assert told.lines()[-1].endswith(
        "4.00 times smaller, and 0.50 times as fast: on this machine it is slower than float32"
    )
    assert dataclasses.replace(told, beside=(200, 0.002)).lines()[-1].endswith("and 1.00 times as fast")


def test_a_wrong_file_is_told_by_its_differences(run, kept_programs):
    network, split, folder = run
    right = runtimes.of_file(folder / "a.onnx")
    wrong = runtimes.Runtime("wrong", lambda images: -right.call(images), right.image_shape, "uint8", 1)
    verdict = verify.verify(network, wrong, split, 64)
    assert verdict.difference > verdict.scale and verdict.agreement < 0.5
    accuracies = dict((name, (of_run, of_file)) for name, of_run, of_file in verdict.figures)["top1_accuracy"]
    assert accuracies[0] > accuracies[1]


@pytest.mark.parametrize(
    ("task", "wrong", "agreement", "words"),
    [
        ("regression", -1.0, None, "largest difference of a number 6 (their standard deviation is 2.24); R² against"),
        ("multilabel", 0.0, 0.5, "the same labels for 50.00%"),  # of one label: half of them are above its threshold
        ("classification", -1.0, 0.0, "the same largest logit for 0.00%"),
    ],
)
def test_answers_are_compared_by_their_task(task, wrong, agreement, words):
    of_run = np.float32([[-3], [-1], [1], [3]]) if task != "classification" else np.float32([[1, 2], [2, 1]])
    constants = Constants(np.zeros(1), np.ones(1), {"target_mean": np.float32([5]), "target_std": np.float32([1])})
    network = types.SimpleNamespace(
        spec=types.SimpleNamespace(task=by_name.make(configs.Task(name=task), of_run.shape[1])),
        class_names=("a", "b")[: of_run.shape[1]], constants=constants, fitted={"thresholds": [0.7]},
    )  # fmt: skip

    def verdict(of_file):
        told = verify._alike(network, of_run, of_file)
        return verify.Verdict("it", 4, **told, figures=[], size=1, latency=1.0)

    of_file = of_run * wrong if task != "multilabel" else np.float32([[-3], [1], [0.5], [3]])
    right, other = verdict(of_run), verdict(of_file)
    assert right.difference == 0 and right.agreement in (1.0, None) and right.r2 in (1.0, None)
    assert words in other.lines()[1] and other.agreement == agreement
    assert task != "regression" or other.r2 == -3.0


def test_files_tell_what_their_user_must_know_and_have_any_batch_size(run):
    _, split, folder = run
    session = onnxruntime.InferenceSession(folder / "a.onnx")
    texts = session.get_modelmeta().custom_metadata_map
    of_onnx = {name: json.loads(texts[name]) for name in texts if name not in ("format", "made_by", "sha256")}
    of_stablehlo = json.loads((folder / "a.stablehlo.json").read_text())
    for facts in (of_onnx, of_stablehlo):
        assert facts["class_names"] == [str(digit) for digit in range(10)]
        assert facts["image_shape"] == [8, 8, 1] and facts["image_dtype"] == "uint8" and facts["step"] == digits.STEPS
        assert len(facts["mean"]) == len(facts["std"]) == 1 and "normalised inside" in facts["input"]
    exported = export.deserialize(bytearray((folder / "a.stablehlo").read_bytes()))
    assert tuple(exported.platforms) == ("cpu", "cuda", "tpu")
    for name in ("a.onnx", "a.stablehlo"):
        runtime = runtimes.of_file(folder / name)
        images = np.asarray(split.read(np.arange(3)))
        whole, one = runtime.call(images), runtime.call(images[1:2])
        np.testing.assert_allclose(one[0], whole[1], atol=TOLERANCE)


def test_equal_networks_give_equal_files(run, tmp_path):
    network, _, folder = run
    onnx_file.write(network, tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == (folder / "a.onnx").read_bytes()


@pytest.mark.parametrize("name", ["a.onnx", "a.stablehlo"])
def test_files_cut_or_flipped_anywhere_are_refused_in_one_line(run, name, tmp_path):
    _, _, folder = run
    whole, path = (folder / name).read_bytes(), tmp_path / name
    beside = folder / f"{name}.json"
    if beside.exists():
        (tmp_path / beside.name).write_bytes(beside.read_bytes())
    bad = [whole[:cut] for cut in range(0, len(whole), 997)] + [whole + b"\0"]
    bad += [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(0, len(whole), 101)]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            runtimes.of_file(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_facts_beside_a_file_that_were_changed_are_refused(run, tmp_path):
    _, _, folder = run
    path, beside = tmp_path / "a.stablehlo", tmp_path / "a.stablehlo.json"
    path.write_bytes((folder / path.name).read_bytes())
    whole = (folder / beside.name).read_text()
    facts = json.loads(whole)
    bad = [whole.replace('"7"', '"1"'), whole.replace('"sha256_of_facts": "', '"sha256_of_facts": "0')]
    for text in (*bad, json.dumps(facts), json.dumps({k: facts[k] for k in facts if k != "sha256_of_facts"})):
        assert text != whole
        beside.write_text(text)
        with pytest.raises(UserError, match=r"a\.stablehlo\.json is damaged or was changed; export the run again"):
            runtimes.of_file(path)


def test_facts_beside_a_file_with_any_byte_changed_are_refused(tmp_path):
    path, facts_file = tmp_path / "a.tflite", tmp_path / "a.tflite.json"
    facts = {"made_by": "jaxcnn 0.1", "class_names": '["\\u00e9", "b"]', "mean": f"[{0.1 + 0.2!r}, 1e-05]"}
    beside.write(path, b"the network", facts)
    whole, told = facts_file.read_bytes(), beside.read(path)[1]
    assert told["class_names"] == ["é", "b"] and told["mean"] == [0.1 + 0.2, 1e-05]
    accepted = []
    for place in range(len(whole)):
        for mask in (1, 32, ord(" ") ^ ord("\n"), ord("\n") ^ ord("\r")):
            facts_file.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            with contextlib.suppress(UserError):
                beside.read(path)
                accepted.append((place, mask))
    assert not accepted


def test_a_file_alone_is_served_with_the_answers_of_its_run(run, tmp_path, kept_programs):
    network, split, folder = run
    assert network.fitted["temperature"] != 1
    exported.write(network, "jaxcnn", tmp_path / "a.safetensors")
    compressed.write(tmp_path / "a.jxc", seals.on_host(network.variables), exported.facts(network))
    images = np.asarray(split.read(np.arange(3)))
    wanted = predict.answers(network, images)
    for path in (folder / "a.onnx", tmp_path / "a.safetensors", tmp_path / "a.jxc"):
        runtime = runtimes.of_file(path)
        service = Service(of_facts.of(runtime.facts, "it"), 4, max_megapixels=1.0, file=runtime)
        for answer, other in zip(service.answers([Decoded(each) for each in images]), wanted, strict=True):
            assert answer["label"] == other["label"]
            assert answer["probability"] == pytest.approx(other["probability"], abs=1e-4)
        assert service.facts()["temperature"] == network.fitted["temperature"]
        assert (runtime.reading > 0) == (path.suffix in runtimes.WEIGHTS)


def test_probabilities_have_the_temperature_of_validation_unless_thresholds_are_for_those_without():
    task = by_name.make(configs.Task(), 2)
    for fitted, wanted in (({}, 2.0), ({"temperature": 0.5}, 4.0), ({"temperature": 0.5, "thresholds": [0.1]}, 2.0)):
        (answer,) = task.evaluation.answers(np.float32([[0, 2]]), ("a", "b"), None, fitted)
        assert answer["label"] == "b" and answer["probability"] == pytest.approx(1 / (1 + np.exp(-wanted)), rel=1e-6)


def test_a_file_of_int8_tells_the_instructions_of_the_processor_and_others_do_not():
    plain = runtimes.Runtime("it", lambda images: images, (8, 8, 1), "uint8", 1)
    assert runtimes.of_int8(plain) == ""
    assert runtimes.of_int8(dataclasses.replace(plain, facts={"quantize": "int8"})) == instructions.in_words()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": None}, "it does not tell its network; export the run again, or give the folder of its run, too"),
        ({"class_names": 3}, "it does not tell its network"),
        ({"image_shape": [8, 8, 10**9]}, "it does not tell its network"),
        ({"std": [0.0]}, "it does not tell its network"),
        ({"mean": [10**400]}, "it does not tell its network"),
        ({"fitted": {"temperature": 0}}, "it does not tell its network"),
        ({"constants": {"a": [1.0]}}, "it does not tell its network"),
        (
            {"model": {"name": "os:abort"}},
            "config.model.name is os:abort, code that is not in the file; give the folder",
        ),
        ({"model": {"width": "x"}}, "it has facts of another version (config.model.width must be"),
    ],
)
def test_facts_that_tell_no_network_are_refused_and_run_nothing(run, change, words):
    told = of_facts.parsed(predictor.facts(run[0]))
    with pytest.raises(UserError) as caught:
        of_facts.of(told | change, "it")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_whose_facts_name_other_classes_than_it_has_outputs_is_refused_before_it_answers(run):
    facts = of_facts.parsed(predictor.facts(run[0]))
    wrong = facts | {"class_names": facts["class_names"][:3]}
    shape, dtype = run[0].spec.image_shape, run[0].spec.image_dtype
    file = runtimes.Runtime("it", lambda images: np.zeros((len(images), 10), np.float32), shape, dtype, 1, wrong)
    with pytest.raises(UserError, match=r"gives outputs \[1, 10\], but its facts tell 3 for each image"):
        Service(of_facts.of(wrong, "it"), 1, max_megapixels=1.0, file=file).warm_up()


@pytest.mark.parametrize("in_jax", [False, True])
def test_a_graph_that_jaxcnn_never_wrote_is_refused_when_it_runs_whatever_its_digest(run, in_jax, tmp_path):
    _, _, folder = run
    content = (folder / "a.onnx").read_bytes()
    assert content.count(b"strides") > 1
    forged = digest._DIGEST.sub(b"sha256\x12@" + digest.NO_DIGEST.encode(), content.replace(b"strides", b"strideq"))
    (tmp_path / "b.onnx").write_bytes(digest.sealed(forged))
    with pytest.raises(UserError, match=r"b\.onnx does not run here"):
        runtime = runtimes.of_file(tmp_path / "b.onnx", in_jax=in_jax)
        runtime.call(np.zeros((1, 8, 8, 1), np.uint8))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"its name must end with \.onnx, \.stablehlo or \.tflite"):
        runtimes.of_file(tmp_path / "a.pb")
    for name in ("a.onnx", "a.stablehlo"):
        with pytest.raises(UserError, match="cannot be read: No such file"):
            runtimes.of_file(tmp_path / name)


def test_a_network_of_another_type_of_numbers_is_computed_in_float32(run):
    network, _, _ = run
    half = dataclasses.replace(network.spec, model=dataclasses.replace(network.spec.model, dtype="bfloat16"))
    made = onnx_file.graph_of(dataclasses.replace(network, spec=half))
    assert [node.op for node in made.nodes] == [node.op for node in onnx_file.graph_of(network).nodes]
    assert predictor.in_float32(network).spec.model.dtype == "float32"


def test_times_are_quantiles_of_calls_and_the_first_call_is_apart():
    slow = iter([0.2] + [0.0] * 10_000)

    def call(images):
        assert images.shape[1:] == (2, 2, 3) and images.dtype == np.uint8
        time.sleep(next(slow))
        return np.zeros((len(images), 2), np.float32)

    answered = []
    runtime = runtimes.Runtime("none", call, (2, 2, 3), "uint8", 0)
    (timing,) = latency.measure(runtime, [4], 0.0, lambda: answered.append(1))
    assert timing.batch == 4 and timing.calls == latency.LEAST_CALLS and len(answered) == 1
    assert timing.first >= 0.2 > timing.p99 >= timing.p95 >= timing.p50 > 0
    assert timing.images_per_second == 4 / timing.p50
    assert len(latency.table([timing])) == 3
    assert latency.process_seconds() > 0 and latency.peak_bytes() > 2**20


def test_the_commands_write_verify_and_time_a_file_and_tell_wrong_flags_in_one_line(run, tmp_path):
    _, _, folder = run
    flags = (f"--workdir={folder}/run", f"--out={tmp_path}/b.onnx", "--format=onnx")
    code, output = runs.run(*flags, "--verify", module="jaxcnn.export")
    assert (
        code == 0
        and "b.onnx: 16 operators of step 40 (ema weights), BatchNorm folded" in output
        and "100.00%" in output
    )
    assert (tmp_path / "b.onnx").read_bytes() == (folder / "a.onnx").read_bytes()
    written = (tmp_path / "b.onnx.md").read_text()
    assert "- verified in ONNX Runtime on cpu on 200 examples:" in written and "**not of this artefact**" not in written
    (tmp_path / "config.json").write_text("{}")  # as in the folder of a run
    timed = (f"--file={tmp_path}/b.onnx", "--seconds=0", "--batches=2,1", f"--out={tmp_path}/l.json")
    code, output = runs.run(*timed, module="jaxcnn.latency")
    figures = json.loads((tmp_path / "l.json").read_text())
    assert code == 0 and [each["batch"] for each in figures["timings"]] == [1, 2] and "ONNX Runtime on cpu" in output
    kept = next(line for line in output.splitlines() if line.startswith(f"kept for the report in {tmp_path}/"))
    told = json.loads(pathlib.Path(kept.partition(" in ")[2]).read_text())
    assert told["verified"]["split"] == "val" and (told["backend"], told["device"]) == ("cpu", "")
    assert figures["cold_start_seconds"] > 0 and figures["bytes"] == (tmp_path / "b.onnx").stat().st_size
    (folder / "c.onnx.md").write_text("mine")
    for module, wrong, words in (
        ("jaxcnn.export", (f"--workdir={tmp_path}/none",), f"is {tmp_path}/none the folder of a run that has started"),
        ("jaxcnn.explain", (f"--workdir={tmp_path}/none", "--split=val", f"--out={tmp_path}/no"), "none the folder of"),
        ("jaxcnn.export", ("--format=web", f"--out={tmp_path}/page", "--runtime=jaxcnn"), "has no ort.wasm.min.mjs"),
        ("jaxcnn.export", ("--format=onnx", "--calibration=minmax"), "--calibration is for --quantize=int8; leave it"),
        (
            "jaxcnn.export",
            ("--format=onnx", f"--out={folder}/c.onnx"),
            "c.onnx.md is there, and is no model card; move",
        ),
        ("jaxcnn.export", ("--format=onnx", "--names=timm"), "--names is for --format=safetensors, not onnx; leave"),
        ("jaxcnn.export", ("--format=onnx", "--split=test"), "--split is for --verify; leave it out"),
        (
            "jaxcnn.export",
            ("--format=stablehlo", "--nofold"),
            "--fold is for --format=onnx, savedmodel, tflite or web,",
        ),
        ("jaxcnn.latency", ("--batches=1,0",), "batch sizes are numbers from 1"),
        ("jaxcnn.latency", ("--runtime=jax",), "--runtime is for --file=<file>.onnx; leave it out"),
        ("jaxcnn.latency", (f"--out={tmp_path}/no/x.json",), f"cannot be written: there is no folder {tmp_path}/no; "),
        ("jaxcnn.doctor", ("--out=x.png",), "--out is for --data; leave it out"),
    ):
        code, output = runs.run(f"--workdir={folder}/run", *wrong, module=module)
        assert code == 2 and words in output.splitlines()[-1]
    assert not (tmp_path / "no").exists()


def test_a_model_card_has_the_figures_of_these_weights_alone_and_what_they_come_from(run):
    network, _, folder = run
    path = card.write(network, folder / "run", folder / "a.onnx", "onnx")
    text = path.read_text()
    lines = text.splitlines()
    assert path.name == "a.onnx.md" and lines[0] == "# Model card: a.onnx"
    summary = json.loads((folder / "run" / "summary.json").read_text())
    test = summary["test"]
    assert f"| val | all | accuracy | {100 * summary['val_last']:.2f}% |" in lines
    assert f"| test | 360 | accuracy | {100 * test['ema_top1_accuracy']:.2f}% |" in lines
    assert f"| test | 360 | loss | {test['ema_loss']:.4f} |" in lines
    classes = json.loads((folder / "run" / "test.json").read_text())["per_class_accuracy"]
    assert any(f"{100 * min(classes.values()):.1f}% found" in line for line in lines)
    digest = hashlib.sha256((folder / "a.onnx").read_bytes()).hexdigest()
    assert f"| SHA-256 of the file | {digest} |" in lines
    there = json.loads((folder / "run" / "environment.json").read_text())
    assert any(line.startswith("| trained by |") and str(there["commit"]) in line for line in lines)
    assert any("licence" in line.lower() and line.endswith(card.TO_FILL_IN) for line in lines)
    assert "| size | 8 x 8 pixels, 1 channels (grey) |" in lines and "| 7 | 7 |" in lines
    path.write_text(text.replace(card.TO_FILL_IN, "by me", 1))
    again = card.write(network, folder / "run", folder / "a.onnx", "onnx").read_text()
    assert again.count("by me") == 1 and again.count(card.TO_FILL_IN) == text.count(card.TO_FILL_IN) - 1
    own = "\n\n## Licence\n\nMIT\n\n### Data\n\nby hand\n"
    filled = again.replace(f"\n\n## {card._BELOW[0]}\n", f"{own}\n## {card._BELOW[0]}\n")
    path.write_text(filled)
    assert card.write(network, folder / "run", folder / "a.onnx", "onnx").read_text() == filled
    other = card.write(dataclasses.replace(network, weights="last"), folder / "run", folder / "a.onnx", "onnx")
    assert "Of the artefact itself nothing was measured." in other.read_text() and "| test |" not in other.read_text()
    inexact = card.write(network, folder / "run", folder / "a.onnx", "int8", exact=False, measured=["- 9 of 10"])
    assert "**not of this artefact**:" in inexact.read_text() and "- 9 of 10" in inexact.read_text()


def test_names_that_others_chose_are_no_markup_on_a_model_card(run, tmp_path):
    network, _, folder = run
    network = dataclasses.replace(network, class_names=("a|b", "*x*", "<b>", "[l](z)", "one\n# two", "`c`"))
    (tmp_path / "a_b_.onnx").write_bytes(b"1")
    text = card.write(network, folder / "run", tmp_path / "a_b_.onnx", "onnx").read_text()
    assert text.startswith("# Model card: a\\_b\\_.onnx\n")
    for number, name in enumerate((r"a\|b", r"\*x\*", r"\<b\>", r"\[l\](z)", r"one\\n\# two", r"\`c\`")):
        assert f"| {number} | {name} |" in text


def test_a_folder_has_all_that_a_page_needs_and_the_facts_of_its_network(run, tmp_path):
    network, _, folder = run
    network = dataclasses.replace(network, class_names=("</script>", *network.class_names[1:]))
    out, runtime = tmp_path / "page", {name: name.encode() for name in web_runtime.FILES}
    path = web.begin(network, out)
    path.write_bytes((folder / "a.onnx").read_bytes())
    size = web.write(network, out, "none", runtime)
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    page = {"index.html", "page.css", "page.js", "boxes.js", "worker.js", "pixels.js", "offline.js"}
    assert files == page | {"model.onnx", "network.json"} | {f"runtime/{name}" for name in runtime}
    assert size == sum((out / file).stat().st_size for file in files)
    facts = json.loads((out / "network.json").read_text())
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["class_names"][0] == "</script>" and facts["image_shape"] == [8, 8, 1] and facts["resize"] == "crop"
    for name in page:  # nothing is asked of another server, and nothing runs that the policy forbids
        text = (out / name).read_text()
        assert "http" not in text.replace("http-equiv", "").replace("http.server", "").replace("http://localhost", "")
        assert "innerHTML" not in text and "eval(" not in text
