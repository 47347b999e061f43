"""The heartbeat: values are exchanged, a lost process is noticed by all, and each has a last word."""

import contextlib
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from jaxcnn.machine import messages
from jaxcnn.machine.heartbeat import Cluster, newest_checkpoint
from tests.test_hosts import free_port

# A process of three that exchanges a value, then does what the test wants.
PROCESS = """
import os, pathlib, signal, sys, time
from jaxcnn.machine import meeting
from jaxcnn.config import Hosts, UserError
from jaxcnn.machine.heartbeat import Cluster, Standing
process, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
wanted = Hosts(heartbeat_seconds=2, join_seconds=120)
heartbeat = meeting.meet(meeting.Place("address", f"localhost:{{port}}", 3, process), wanted)
heartbeat.start()
cluster = Cluster(heartbeat)
assert cluster.gather(process * 10) == [0, 10, 20]
assert cluster.of_first(lambda: "from 0") == "from 0"
cluster.tell_with(lambda: Standing(17, folder))
cluster.gather()
print("met", flush=True)
if process == {actor}:
{action}
time.sleep(120)
"""


def run_three(tmp_path: pathlib.Path, actor: int, action: str) -> list[tuple[int, str]]:
    """Exit code and output of each of three processes, of which `actor` does `action`."""
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    code = PROCESS.format(actor=actor, action=textwrap.indent(textwrap.dedent(action), "    "))
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(process), port, str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for process in range(3)
    ]  # fmt: skip
    try:
        outputs: dict[int, str] = {}
        for process in sorted(range(3), key=lambda each: each == actor):  # a stopped one never ends by itself
            if process == actor:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    processes[process].wait(5)
                processes[process].kill()
            outputs[process] = processes[process].communicate(timeout=120)[0]
        return [(processes[process].returncode, outputs[process]) for process in range(3)]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("actor", [0, 2], ids=["the first", "another"])
def test_when_a_process_is_killed_every_other_tells_which_and_where_the_run_stands(tmp_path, actor):
    found = run_three(tmp_path, actor, "os.kill(os.getpid(), signal.SIGKILL)")
    for process, (code, output) in enumerate(found):
        if process != actor:
            assert code == 75, output
            assert f"process {process} of 3 on {os.uname().nodename} stopped at step 17" in output
            assert f"process {actor} on {os.uname().nodename} is gone: it was killed, or it crashed" in output
            assert f"the newest checkpoint is that of step 10 in {tmp_path}" in output
            assert "the same command continues the run (exit code 75)" in output


@pytest.mark.parametrize("actor", [0, 2], ids=["the first", "another"])
def test_a_process_that_is_stopped_falls_silent_and_is_given_up(tmp_path, actor):
    found = run_three(tmp_path, actor, "os.kill(os.getpid(), signal.SIGSTOP)")
    for process, (code, output) in enumerate(found):
        if process != actor:
            assert code == 75, output
            assert f"process {actor} on {os.uname().nodename} is silent for 2 s" in output


def test_a_users_mistake_on_one_process_ends_all_with_its_code_and_cause(tmp_path):
    found = run_three(tmp_path, 1, "cluster.fail(UserError('no space on the disk'), 2)")
    for code, output in found:
        assert code == 2, output
        assert "no space on the disk" in output and "continues the run" not in output


def test_the_echo_of_a_lost_process_in_a_collective_operation_is_told_by_its_cause(tmp_path):
    action = """
    try:
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [10.0.0.1]:1")
    except ValueError as error:
        cluster.fail(error, 1)
    """
    code, output = run_three(tmp_path, 1, action)[1]
    assert code == 75, output
    assert "Gloo all-reduce failed" in output and "Traceback" not in output


def test_a_bug_on_one_process_keeps_its_traceback_and_ends_all(tmp_path):
    found = run_three(tmp_path, 1, "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    cluster.fail(error, 1)")
    assert [code for code, _ in found] == [1, 1, 1]
    assert "Traceback" in found[1][1]
    assert "process 1 on" in found[0][1] and "ZeroDivisionError" in found[0][1] and "Traceback" not in found[0][1]


def test_a_bug_of_the_watching_ends_the_process_and_the_others_where_a_run_unwatched_might_hang(tmp_path):
    found = run_three(tmp_path, 0, "heartbeat._take = None")
    assert [code for code, _ in found] == [1, 1, 1]
    assert "Traceback" in found[0][1] and "its heartbeat broke: TypeError" in found[0][1]
    assert "its heartbeat broke" in found[1][1] and "its heartbeat broke" in found[2][1]


def test_a_message_that_is_none_of_the_runs_ends_it_with_its_sender_named(tmp_path):
    found = run_three(tmp_path, 1, "heartbeat._send(0, {'round': 99})")
    assert [code for code, _ in found] == [75, 75, 75]
    assert (
        "process 1 on " in found[0][1] and "is not understood: it sends something that is not a message" in found[0][1]
    )
    assert "Traceback" not in found[0][1]


@pytest.mark.parametrize(
    ("line", "understood"),
    [
        (b"{}", True),
        (b'{"done": true}', True),
        (b'{"round": 1, "value": null}', True),
        (b'{"round": 1, "values": [1, 2]}', True),
        (b'{"leaving": 1, "cause": "c", "code": 75, "passed_on": false}', True),
        (b'{"round": 1}', False),
        (b'{"round": [], "value": 1}', False),
        (b'{"round": 1, "values": 3}', False),
        (b'{"leaving": 1, "cause": "c", "code": "0", "passed_on": false}', False),
        (b"[]", False),
        (b"", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
    ],
)
def test_a_message_is_believed_only_in_the_form_that_it_has(line, understood):
    assert (messages.understood(line) is not None) == understood


def test_one_process_of_each_host_prepares_while_the_others_of_that_host_wait(tmp_path):
    work = """
cluster.hosts = ["a", "a", "b"]
assert cluster.first_on_host == (process != 1)
with cluster.one_per_host_first():
    before = sorted(path.name for path in folder.glob("*.prepared"))
    assert process != 1 or before == ["0.prepared", "2.prepared"], before
    assert process == 1 or "1.prepared" not in before, before
    time.sleep(0.5)
    (folder / f"{process}.prepared").touch()
cluster.end()
"""
    code = PROCESS.format(actor=-1, action="    pass").replace("time.sleep(120)", work)
    port = str(free_port())
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(n), port, str(tmp_path)], stdout=-1, stderr=-2, text=True)
        for n in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs


def test_processes_that_end_together_say_nothing(tmp_path):
    code = PROCESS.format(actor=-1, action="    pass").replace(
        "time.sleep(120)", "time.sleep(process / 2); cluster.end()"
    )
    port = str(free_port())
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(n), port, str(tmp_path)], stdout=-1, stderr=-2, text=True)
        for n in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert outputs == ["met\n"] * 3


def test_a_process_alone_exchanges_with_itself_and_lets_errors_pass():
    cluster = Cluster()
    assert cluster.gather({"a": 1}) == [{"a": 1}]
    with cluster.one_per_host_first():
        pass
    cluster.end()
    cluster.fail(ValueError("gloo"), 1)  # returns


def test_the_newest_checkpoint_is_the_highest_finished_step(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for name in ("9", "10", "11.orbax-checkpoint-tmp", "damaged-12"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_checkpoint(tmp_path) == "the newest checkpoint is that of step 10"
