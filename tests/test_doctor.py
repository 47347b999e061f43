"""The doctor finds what is wrong, and says what to do about it."""

import pytest

from jaxcnn.doctor.checks import CLOCKS_SECONDS, Check, bad_pairs, clocks, compared, count
from jaxcnn.machine.heartbeat import Cluster, Heartbeat
from tests import runs

GOOD = {"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.3.1", "tensorflow-cpu": "2.20.0", "tensorflow": ""}


def test_versions_that_fit_are_not_complained_of():
    assert bad_pairs(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"jaxlib": "0.9.1"}, "jax 0.10.2 with jaxlib 0.9.1"),
        ({"jax-cuda13-plugin": "0.9.0"}, "jax-cuda13-plugin 0.9.0 with jaxlib 0.10.2"),
        ({"jax-cuda12-plugin": "0.10.2", "jax-cuda13-plugin": "0.10.2"}, "uninstall one"),
        ({"tensorflow": "2.20.0"}, "overwrite each other"),
        ({"tensorflow-cpu": "2.16.1"}, "built for numpy 1"),
    ],
)
def test_pairs_that_are_known_to_break_are_named(changed, words):
    (complaint,) = bad_pairs(GOOD | changed)
    assert words in complaint


class Others(Cluster):
    """A process among others, of which it is told these values."""

    def __init__(self, *values) -> None:
        super().__init__()
        self.values = list(values)

    def gather(self, value=None):
        return [value, *self.values]


def test_a_process_that_is_slower_than_the_others_is_warned_of():
    assert compared(Check("throughput", "ok", "90"), Others(100.0, 100.0)).status == "ok"
    slow = compared(Check("throughput", "ok", "60"), Others(100.0, None, 100.0))
    assert slow.status == "warn" and "slows down" in slow.advice and "60 images/s" in slow.found


@pytest.mark.parametrize(("skew", "status"), [(CLOCKS_SECONDS / 2, "ok"), (-CLOCKS_SECONDS - 1, "warn")])
def test_a_host_whose_clock_is_far_off_is_warned_of(skew, status):
    roster = [{"host": "h1"}, {"host": "h2", "skew": skew}]
    check = clocks(Cluster(Heartbeat(0, roster, {}, 5.0)))
    assert check.status == status
    assert f"2 processes on 2 hosts met; clocks within {abs(skew):.2f} s" in check.found
    assert ("NTP" in check.advice) == (status == "warn")


def doctor(*flags: str) -> tuple[int, str]:
    config = "--config=configs/alexnet_cifar10.py:smoke"
    return runs.run(config, *flags, module="jaxcnn.doctor", devices=2, COLUMNS="200")


def test_a_machine_that_is_ready_gives_code_0_and_a_row_for_each_thing(tmp_path):
    code, output = doctor(f"--workdir={tmp_path}")
    assert code == 0, output
    assert "0 failures" in output
    for row in ("versions", "devices", "TensorFlow", "data", "workdir", "compile cache", "hosts", "exchange"):
        assert row in output
    assert "throughput" in output
    assert list(tmp_path.iterdir()) == []


def test_what_fails_gives_code_2_and_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    flags = [f"--workdir={tmp_path}/file/runs", f"--config.data.source=npz:{tmp_path}/absent.npz"]
    code, output = doctor(*flags)
    assert code == 2, output
    assert "2 failures" in output and "choose" in output and "Traceback" not in output


def test_one_check_is_counted_in_the_singular():
    assert count(["ok", "warn", "fail", "fail"]) == "1 ok, 1 warning, 2 failures"
