"""Scaling: what the compiled step sends, the model that predicts its time, and reports measured and predicted."""

import itertools
import json
import math
import re

import jax
import pytest

from jaxcnn.config import UserError
from jaxcnn.learn import sharded
from jaxcnn.learn.collectives import total_bytes
from jaxcnn.machine import mesh as meshes
from jaxcnn.scaling import bandwidth, machines, measure, predict, published, replay, report
from tests import runs, small

pytestmark = pytest.mark.usefixtures("kept_programs")

DEVICES = 8
ALONE = {"group_size": 2}  # BatchNorm within a device: 16 examples on 8 devices
THIN = {"cnn": 0.25, "alexnet": 1 / 32, "resnet50": 1 / 32}


def compiled_step(model: str, **norm: int):
    config = small.config(model={"name": model, "width": THIN[model]}, norm=norm)
    spec, mesh = small.spec_of(config, side=32), meshes.make_mesh(DEVICES)
    return small.unoptimised_step(spec, mesh, "stream"), sharded.abstract_state(spec, mesh)


def nbytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("model", THIN)
def test_the_step_sends_its_gradients_statistics_and_metrics_once_and_nothing_else(model):
    compiled, state = compiled_step(model, **ALONE)
    found = replay.collectives_of(compiled)
    assert {each.kind for each in found} == {"all-reduce"}
    metrics = 4 * 4  # loss, top-1, top-5, count
    # Where a shortcut meets its block, two biases have one gradient, which XLA sends once.
    leaves = jax.tree.leaves_with_path(state.params)
    twice = [leaf for path, leaf in leaves if "shortcut_bn" in str(path) and "bias" in str(path)]
    assert total_bytes(found) == nbytes(state.params) + nbytes(state.batch_stats) + metrics - nbytes(twice)
    assert len(found) <= 3, "one all-reduce, or a few buckets"
    assert {each.group_size for each in found} == {DEVICES}


def test_statistics_of_the_whole_batch_add_two_small_sums_for_each_batch_norm():
    # Forward the mean and the mean square of each channel; backward the gradients of both. XLA may join them.
    alone, state = compiled_step("cnn", **ALONE)
    whole, _ = compiled_step("cnn", group_size=0)
    added = total_bytes(replay.collectives_of(whole)) - total_bytes(replay.collectives_of(alone))
    assert added == 2 * nbytes(state.batch_stats)


@pytest.mark.parametrize("norm", [{"group_size": 0}, {"group_size": 4}])
def test_a_replay_sends_what_the_step_sends(norm):
    found = replay.collectives_of(compiled_step("cnn", **norm)[0])
    again = replay.collectives(replay.compiled_text(found, meshes.make_mesh(DEVICES)))

    def sent(collectives):
        return sorted((each.kind, each.bytes, each.group_size) for each in collectives)

    assert sent(again) == sent(found)
    replay.program(found, meshes.make_mesh(DEVICES))()


def test_a_long_ring_is_bound_by_its_slowest_link():
    links = bandwidth.LINKS["h100"]
    size = 1e13
    # Each device sends all but its own share twice; over two nodes through eight adapters of 50 GB/s at once.
    inside = 2 * 7 / 8 * size / (450e9 * links.attained)
    between = 2 * 15 / 16 * size / (400e9 * links.attained)
    one_adapter = 2 * 3 / 4 * size / (50e9 * links.attained)
    seconds = bandwidth.collective_seconds
    assert seconds(links, "all-reduce", size, 8) == pytest.approx(inside, rel=1e-4)
    assert seconds(links, "all-reduce", size, 16, nodes=2) == pytest.approx(between, rel=1e-4)
    assert seconds(links, "all-reduce", size, 4, nodes=4) == pytest.approx(one_adapter, rel=1e-4)
    halves = seconds(links, "reduce-scatter", size, 8) + seconds(links, "all-gather", size, 8)
    assert halves == pytest.approx(inside, rel=1e-4)


def test_a_short_all_reduce_takes_the_fewest_microseconds_of_any_way():
    links = bandwidth.LINKS["h100"]
    # NCCL's tree in its LL protocol: 4.4 us, twice seven steps of 1.8 * 0.52 us and five of 5 us.
    expected = 1e-6 * (4.4 + 2 * (7 * 1.8 * 0.52 + 5 * 5.0))
    assert bandwidth.collective_seconds(links, "all-reduce", 0, 256, nodes=32) == pytest.approx(expected)
    assert bandwidth.collective_seconds(links, "all-reduce", 1e9, 1) == 0


def test_a_torus_uses_every_link_of_a_closed_axis_and_half_of_an_open_one():
    torus = bandwidth.TORI["v5e"]
    closed = bandwidth.collective_seconds(torus, "all-gather", 1e12, 256, shape=(16, 16))
    assert closed == pytest.approx(255 / 256 * 1e12 / (4 * torus.link), rel=1e-4)
    opened = bandwidth.collective_seconds(torus, "all-gather", 1e12, 64, shape=(8, 8))
    assert opened == pytest.approx(63 / 64 * 1e12 / (2 * torus.link), rel=1e-4)
    assert bandwidth.collective_seconds(torus, "all-reduce", 1e12, 256, shape=(16, 16)) == 2 * closed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu:256", machines.Machine("gpu", "h100", 256)),
        ("gpu:a100:8", machines.Machine("gpu", "a100", 8)),
        ("tpu:v5e:16x16", machines.Machine("tpu", "v5e", 256, (16, 16))),
        ("cpu:512", machines.Machine("cpu", "", 512)),
    ],
)
def test_a_machine_is_known_by_its_name(text, expected):
    assert machines.parse(text) == expected
    assert machines.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "gpu", "gpu:z80:8", "gpu:12", "gpu:0", "tpu:v5e:256", "cpu:8x8", "cpu:100000", "gpu:h100:8:8"]
)
def test_another_name_is_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        machines.parse(text)
    assert "\n" not in str(error.value)


def compiled(*sizes: int, flop: float = 1e12) -> dict:
    each = {"kind": "all-reduce", "group_size": 0, "replica_groups": []}
    return {"collectives": [each | {"bytes": size} for size in sizes], "flops_per_device": flop}


def test_efficiency_is_computing_over_the_whole_step_and_falls_with_devices():
    config = small.config(model={"dtype": "bfloat16"})
    machine = machines.parse("gpu:h100:256")
    found = predict.predict(machine, compiled(10**8, 4096), config, 0.5, None)
    assert found["compute_seconds"] == pytest.approx(1e12 / (0.5 * 989e12))
    curve = found["curve"]
    assert [point["devices"] for point in curve] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert curve[0]["efficiency"] == 1
    for point in curve:
        step = found["compute_seconds"] + point["communication_seconds"]
        assert point["efficiency"] == pytest.approx(found["compute_seconds"] / step)
        assert point["efficiency_overlapped"] >= point["efficiency"]
    assert all(after["efficiency"] < before["efficiency"] for before, after in itertools.pairwise(curve))
    # What must be waited for can not be hidden: with statistics alone, overlap changes nothing.
    small_ones = predict.predict(machine, compiled(4096), config, 0.5, None)["curve"][-1]
    assert small_ones["efficiency"] == small_ones["efficiency_overlapped"] < 1


def test_only_sums_hide_behind_the_backward_pass_since_gathers_come_before_or_after_it():
    machine = machines.parse("gpu:64")
    each = {"bytes": 10**8, "group_size": 64, "replica_groups": []}
    for kind, hides in [("all-reduce", True), ("reduce-scatter", True), ("all-gather", False), ("all-to-all", False)]:
        blocking, hideable = predict.communication(machine, [each | {"kind": kind}], 64)
        assert (hideable > 0, blocking > 0) == (hides, not hides), kind


def test_the_batch_for_nine_tenths_is_that():
    config = small.config(model={"dtype": "bfloat16"})
    machine = machines.parse("gpu:h100:64")
    found = predict.predict(machine, compiled(10**8), config, 0.5, None)
    batch = found["batch_for_90_percent"]
    grown = predict.predict(machine, compiled(10**8, flop=1e12 * batch / 16), config, 0.5, None)
    assert grown["curve"][-1]["efficiency"] == pytest.approx(0.9, rel=0.01)


def test_a_ring_over_ethernet_sends_all_but_each_hosts_own_share_twice_and_pays_for_every_step():
    ethernet = bandwidth.ETHERNET
    bytes_alone = 2 * 7 / 8 * 1e12 / (ethernet.link * ethernet.attained)
    assert bandwidth.collective_seconds(ethernet, "all-reduce", 1e12, 8) == pytest.approx(bytes_alone, rel=1e-4)
    assert bandwidth.collective_seconds(ethernet, "all-reduce", 0, 8) == pytest.approx(14 * ethernet.step)
    assert bandwidth.collective_seconds(ethernet, "all-gather", 1e9, 1) == 0


def test_a_measured_step_takes_the_place_of_an_assumption_and_a_cpu_has_no_peak_to_assume_one_from():
    config = small.config()
    found = predict.predict(machines.parse("gpu:8"), compiled(10**6), config, 0.5, 0.25)
    assert (found["compute_seconds"], found["compute_basis"]) == (0.25, "measured on one device")
    cpu = machines.parse("cpu:8")
    assert predict.predict(cpu, compiled(10**6), config, 0.5, None)["curve"] == []
    curve = predict.predict(cpu, compiled(10**6), config, 0.5, 0.25)["curve"]
    ring = 14 * (bandwidth.ETHERNET.step + 10**6 / 8 / (bandwidth.ETHERNET.link * bandwidth.ETHERNET.attained))
    assert curve[-1]["efficiency"] == pytest.approx(0.25 / (0.25 + ring))


def test_groups_within_a_node_stay_there_on_any_number_of_devices():
    machine = machines.parse("gpu:64")
    within = {
        "kind": "all-reduce",
        "bytes": 4096,
        "group_size": 4,
        "replica_groups": [list(range(i, i + 4)) for i in range(0, 64, 4)],
    }
    assert predict.communication(machine, [within], 64) == predict.communication(machine, [within], 8)
    strided = within | {"replica_groups": [[i, i + 16, i + 32, i + 48] for i in range(16)]}
    assert predict.communication(machine, [strided], 64) > predict.communication(machine, [within], 64)


def test_speed_up_and_efficiency_are_against_the_fewest_devices():
    rows = [{"devices": 4, "images_per_second": 300.0}, {"devices": 2, "images_per_second": 200.0}]
    related = measure.related(rows)
    assert [(row["speedup"], row["efficiency"]) for row in related] == [(1.5, 0.75), (1.0, 1.0)]


def test_published_figures_are_those_of_their_sources():
    nvidia = [each for each in published.FIGURES if "A100" in each.what]
    assert [round(each.efficiency, 2) for each in nvidia] == [0.97, 0.84]
    assert all(each.source for each in published.FIGURES)
    assert "87.5%" in report.published_table()


TINY = (
    "--config=configs/quickstart.py",
    "--config.data.source=synthetic:8x8x3:4:96",
    "--config.data.val_examples=20",
    "--config.model.width=0.25",
    "--config.global_batch_size=16",
)


def test_a_measurement_leaves_rows_text_and_picture(tmp_path):
    flags = ("--mode=strong", "--devices=1,2", "--processes=2", "--seconds=0.1", "--rounds=2", f"--out={tmp_path}/new")
    code, output = runs.run(*TINY, *flags, module="jaxcnn.scaling", **runs.UNOPTIMISED)
    assert code == 0, output
    record = json.loads((tmp_path / "new" / "scaling.json").read_text())
    assert record["mode"] == "strong"
    assert record["command"].startswith("python -m jaxcnn.scaling --config=configs/quickstart.py")
    rows = record["rows"]
    assert [(row["over"], row["devices"], row["processes"]) for row in rows] == [
        ("devices", 1, 1),
        ("devices", 2, 1),
        ("processes", 2, 2),
    ]
    for row in rows:
        assert row["global_batch_size"] == 16
        assert row["images_per_second"] > 0
        parts = sum(row[f"{part}_seconds"] for part in ("compute", "communication", "input"))
        assert parts == pytest.approx(row["step_seconds"])
        assert (row["communication_seconds"] > 0) == (row["devices"] > 1)
    assert rows[1]["shares_cores"]
    assert [each["kind"] for each in rows[2]["collectives"]] == [each["kind"] for each in rows[1]["collectives"]]
    text = (tmp_path / "new" / "scaling.md").read_text()
    assert "share" in text and "strong scaling over processes" in text
    assert (tmp_path / "new" / "scaling.png").stat().st_size > 10_000


def test_a_stream_is_measured_against_a_loop_that_is_fed_one_batch(tmp_path):
    flags = ("--mode=weak", "--devices=2", "--seconds=0.1", "--rounds=1", f"--out={tmp_path}")
    code, output = runs.run(*TINY, *flags, "--config.data.loader=stream", module="jaxcnn.scaling", **runs.UNOPTIMISED)
    assert code == 0, output
    (row,) = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert (row["loader"], row["global_batch_size"]) == ("stream", 32)
    assert row["input_seconds"] >= 0


def test_a_simulation_compiles_for_more_devices_than_there_are(tmp_path):
    flags = ("--simulate=gpu:16", "--config.norm.group_size=16", f"--out={tmp_path}")
    code, output = runs.run(*TINY, *flags, module="jaxcnn.scaling", **runs.UNOPTIMISED)
    assert code == 0, output
    record = json.loads((tmp_path / "simulated-gpu-h100-16.json").read_text())
    (network,) = record["networks"]
    assert {each["kind"] for each in network["collectives"]} == {"all-reduce"}
    assert {each["group_size"] for each in network["collectives"]} == {16}
    total = sum(each["bytes"] for each in network["collectives"])
    assert 4 * network["parameters"] < total < 4.2 * network["parameters"] + 1000
    assert [point["devices"] for point in network["prediction"]["curve"]] == [1, 2, 4, 8, 16]
    assert math.isfinite(network["prediction"]["batch_for_90_percent"])
    text = (tmp_path / "simulated-gpu-h100-16.md").read_text()
    assert "Nothing here ran" in text
    assert ("virtual CPU devices" in text) == (record["machine"]["compiler"] == "cpu")


def test_sixteen_hosts_with_a_cpu_each_are_compiled_and_predicted_from_a_measured_step(tmp_path):
    flags = ("--simulate=cpu:16", "--config.norm.group_size=16", "--step_seconds=0.01", f"--out={tmp_path}")
    code, output = runs.run(*TINY, *flags, module="jaxcnn.scaling", **runs.UNOPTIMISED)
    assert code == 0, output
    record = json.loads((tmp_path / "simulated-cpu-16.json").read_text())
    (network,) = record["networks"]
    assert (record["machine"]["compiler"], record["machine"]["remark"]) == ("cpu", "")
    assert {(each["kind"], each["group_size"]) for each in network["collectives"]} == {("all-reduce", 16)}
    assert sum(each["bytes"] for each in network["collectives"]) > 4 * network["parameters"]
    assert [point["devices"] for point in network["prediction"]["curve"]] == [1, 2, 4, 8, 16]
    assert "devices  efficiency  with overlap" in output and re.search(r"^ +16 +\d+% +\d+% +[\d,]+$", output, re.M)
    assert "25 Gb/s Ethernet" in (tmp_path / "simulated-cpu-16.md").read_text()


def test_xla_gpu_joins_gradients_into_buckets_where_its_plugin_is_installed(tmp_path):
    pytest.importorskip("jax_plugins.xla_cuda12", reason="needs jax-cuda12-plugin, though no GPU")
    flags = ("--simulate=gpu:a100:16", "--config.norm.group_size=16", f"--out={tmp_path}")
    code, output = runs.run(*TINY, *flags, module="jaxcnn.scaling")
    assert code == 0, output
    record = json.loads((tmp_path / "simulated-gpu-a100-16.json").read_text())
    assert record["machine"]["compiler"] == "cuda"
    assert len(record["networks"][0]["collectives"]) <= 3


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--devices=0", "whole numbers of at least 1"),
        ("--devices=3", "cannot be divided equally over 3 devices"),
        ("--mode=fast", "choose from strong, weak"),
        ("--models=lenet", "config.model.name must be one of"),
        ("--simulate=gpu:12", "a node has 8 GPUs"),
        ("--step_seconds=x", "must be 1 positive numbers"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flag, words, tmp_path):
    simulate = () if "step" not in flag else ("--simulate=gpu:8",)
    code, output = runs.run(*TINY, flag, *simulate, f"--out={tmp_path}/none", module="jaxcnn.scaling")
    assert code == 2
    assert words in output
    assert len(output.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_help_imports_nothing_heavy():
    code, output = runs.run("--help", module="jaxcnn.scaling", PYTHONPROFILEIMPORTTIME="1")
    assert code == 0
    assert "--simulate" in output
    assert not {"jax", "matplotlib", "flax"} & {line.rpartition("|")[2].strip() for line in output.splitlines()}
