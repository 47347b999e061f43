"""Joining: who started a process, where the others are, and what happens when they do not come or differ."""

import contextlib
import json
import platform
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import pytest

from jaxcnn.config import Hosts, UserError
from jaxcnn.machine import hosts, meeting, messages
from jaxcnn.machine.hosts import find_launcher
from jaxcnn.machine.meeting import HostsError, Place

SLURM = {"SLURM_STEP_NODELIST": "h[1-2]", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, "alone"),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, "alone"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, "alone"),  # a batch script without srun
        (OPEN_MPI, "ompi"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, "alone"),
        # mpirun in an allocation of Slurm: on its first host, on the others, and of a single process
        (OPEN_MPI | {"SLURM_JOB_NUM_NODES": "2", "SLURM_PROCID": "0"}, "ompi"),
        (OPEN_MPI | SLURM | {"SLURM_JOB_NUM_NODES": "2"}, "ompi"),
        (OPEN_MPI | SLURM | {"OMPI_COMM_WORLD_SIZE": "1"}, "alone"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "alone"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "k8s"),
        ({"JAX_COORDINATOR_ADDRESS": "h1:1"} | SLURM, "address"),
    ],
)
def test_the_launcher_is_told_by_the_environment(environment, launcher):
    assert find_launcher(Hosts(), environment) == launcher


def test_the_config_has_the_last_word_about_the_launcher():
    assert find_launcher(Hosts(join="alone"), SLURM) == "alone"
    assert find_launcher(Hosts(coordinator="h1:7733"), SLURM) == "address"


def test_an_mpi_that_jax_does_not_know_needs_mpi4py(monkeypatch):
    monkeypatch.setattr(hosts.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="mpi4py"):
        find_launcher(Hosts(), {"PMI_SIZE": "2"})


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Hosts(join="address"), "must be <host>:<port>"),
        (Hosts(coordinator="h1"), "must be <host>:<port>"),
        (Hosts(coordinator="h1:7733"), "needs config.hosts.processes"),
        (Hosts(coordinator="h1:7733", processes=2), "needs config.hosts.process "),
        (Hosts(coordinator="h1:7733", processes=2, process=2), "must be below config.hosts.processes=2"),
        (Hosts(join="slurm"), "slurm did not start this process"),
    ],
)
def test_what_is_missing_is_told_in_one_line(wanted, words, monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as caught:
        hosts.find_place(wanted, find_launcher(wanted, {}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_process_alone_does_not_even_import_jax():
    code = (
        "import sys; from jaxcnn import config; from jaxcnn.machine import hosts; "
        "cluster = hosts.join(config.Hosts()); "
        "assert cluster.alone and cluster.first and cluster.gather(3) == [3]; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def meet_all(count: int, present: list[int], fingerprints=lambda process: 0, seconds: int = 5) -> list:
    """What `meet` gives to each process that is present: a lifeline, or the error that it raised."""
    port = free_port()

    def one(process: int):
        try:
            place = Place("address", f"localhost:{port}", count, process)
            return meeting.meet(place, Hosts(join_seconds=seconds), fingerprints(process))
        except UserError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, present))


def test_processes_that_meet_know_each_other():
    lifelines = meet_all(3, [2, 0, 1])
    assert [heartbeat.process for heartbeat in lifelines] == [2, 0, 1]
    for heartbeat in lifelines:
        assert [card["process"] for card in heartbeat.roster] == [0, 1, 2]


def test_a_process_that_does_not_come_is_named_to_all_the_others_and_the_exit_code_says_try_again():
    errors = meet_all(4, [0, 2], seconds=1)
    for error in errors:
        assert isinstance(error, HostsError) and error.exit_code == 75
        assert "1, 3" in str(error) and "of 4 processes" in str(error)


def test_a_coordinator_that_cannot_be_reached_is_named_in_time():
    (error,) = meet_all(2, [1], seconds=1)
    assert isinstance(error, HostsError)
    assert "did not reach process 0 at localhost:" in str(error) and "onnection refused" in str(error)


def test_processes_with_different_configs_are_refused_on_all_of_them_alike():
    errors = meet_all(3, [0, 1, 2], fingerprints=lambda process: {"seed": process // 2})
    assert [str(error) for error in errors] == [str(errors[0])] * 3
    assert "process 2 on" in str(errors[0]) and "different configs" in str(errors[0])


def test_processes_with_different_versions_are_refused(monkeypatch):
    monkeypatch.setattr(meeting.extras, "version", lambda package: str(threading.get_ident()))
    errors = meet_all(2, [0, 1])
    assert all("install the same version" in str(error) for error in errors)


def test_whatever_else_comes_to_the_port_is_sent_away():
    port = free_port()
    place = Place("address", f"localhost:{port}", 2, 0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meeting.meet, place, Hosts(join_seconds=10))
        for _ in range(100):
            try:
                stranger = socket.create_connection(("localhost", port))
                break
            except OSError:
                threading.Event().wait(0.05)
        stranger.sendall(b"GET / HTTP/1.1\n")
        second = meeting.meet(Place("address", f"localhost:{port}", 2, 1), Hosts(join_seconds=10))
        assert len(first.result().roster) == len(second.roster) == 2
    stranger.close()


def test_a_process_of_another_run_is_sent_away_and_told_which_run_is_there():
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        place = Place("address", f"localhost:{port}", 2, 0)
        first = pool.submit(meeting.meet, place, Hosts(join_seconds=10), run="/shared/a")
        other = Place("address", f"localhost:{port}", 2, 1)
        with pytest.raises(HostsError) as error:
            meeting.meet(other, Hosts(join_seconds=2), run="/shared/b")
        assert "belongs to another run: /shared/a, of 2 processes; this run is /shared/b" in str(error.value)
        assert len(meeting.meet(other, Hosts(join_seconds=10), run="/shared/a").roster) == 2
        assert len(first.result().roster) == 2


@contextlib.contextmanager
def first_of(processes: int, token: str = "", seconds: int = 10) -> Iterator[tuple[int, Future]]:
    """Process 0 of several, which waits at a port: the port, and what comes of its meeting."""
    port = free_port()
    place = Place("address", f"localhost:{port}", processes, 0)
    with ThreadPoolExecutor(1) as pool:
        meeting_of_0 = pool.submit(meeting.meet, place, Hosts(join_seconds=seconds), token=token)
        yield port, meeting_of_0


def comes(port: int, content: bytes) -> socket.socket:
    """A connection to process 0 by which something has come."""
    deadline = time.monotonic() + 5
    while True:
        try:
            link = socket.create_connection(("localhost", port))
            link.sendall(content)
            return link
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def answer_to(port: int, content: bytes) -> dict:
    with comes(port, content) as link:
        return messages.read_line(link, 10, 2**16) or {}


def card(**changes) -> bytes:
    """What process 1 of 2 would show, changed."""
    plain = {
        "process": 1, "processes": 2, "run": "", "host": "a", "pid": 1, "clock": 1.5, "versions": {}, "fingerprint": 1
    }  # fmt: skip
    return json.dumps(plain | changes).encode() + b"\n"


def second(port: int, token: str = "", seconds: int = 10):
    return meeting.meet(Place("address", f"localhost:{port}", 2, 1), Hosts(join_seconds=seconds), token=token)


def test_cards_that_no_process_shows_take_no_place_and_end_nothing(caplog):
    wrong = [
        card(process=0), card(process=2), card(process=-1), card(process=10**30), card(process="1"), card(process=True),
        card(process=None), card(clock="now"), card(clock=10**400), card(clock=float("nan")), card(host=["a"]),
        card(versions=3), card(versions={"jax": {}}), card(fingerprint=None), card(run={}), card(processes=3),
        b"[" * 60_000 + b"\n", b"x" * (meeting.CARD_BYTES + 1), b"[]\n", b"null\n", b"\xff\n", b"\n",
    ]  # fmt: skip
    with first_of(2) as (port, meeting_of_0):
        for content in wrong:
            with contextlib.suppress(ConnectionError):  # the rest of a long line is not read
                assert not answer_to(port, content).keys() - {"stranger", "why"}, content
        assert [each["process"] for each in second(port).roster] == [0, 1]
        assert len(meeting_of_0.result().roster) == 2
    assert len(caplog.messages) < len(wrong), "what comes again and again is told once"


def test_what_shows_its_card_too_slowly_holds_up_nobody_for_long(monkeypatch):
    monkeypatch.setattr(meeting, "CARD_SECONDS", 0.3)
    with first_of(2) as (port, meeting_of_0):
        slow = comes(port, b"{")
        began = time.monotonic()
        assert len(second(port).roster) == len(meeting_of_0.result().roster) == 2
        assert time.monotonic() - began < 3
        slow.close()


def test_a_taken_place_is_kept_until_its_holder_has_left():
    with first_of(3) as (port, meeting_of_0):
        held = comes(port, card(processes=3))
        answer = answer_to(port, card(processes=3, host="b"))
        assert "process 1 is already connected, from a" in answer["stranger"]
        held.close()
        kept = comes(port, card(processes=3, host="b"))
        last = comes(port, card(processes=3, process=2, host="c"))
        with pytest.raises(UserError, match="install the same version"):  # both are read, and they are of no version
            meeting_of_0.result()
        kept.close(), last.close()


def test_processes_with_one_token_meet_and_one_with_another_does_not():
    with first_of(2, token="a") as (port, meeting_of_0):
        with pytest.raises(HostsError, match=r"process 0 on \S+ has a different \$JAXCNN_TOKEN"):
            second(port, token="b", seconds=1)
        assert len(second(port, token="a").roster) == len(meeting_of_0.result().roster) == 2


@pytest.mark.parametrize("tokens", [("a", ""), ("", "a")])
def test_a_token_on_one_side_alone_is_told_in_one_line_at_once(tokens):
    with first_of(2, token=tokens[0], seconds=2) as (port, meeting_of_0):
        with pytest.raises(UserError) as error:
            second(port, token=tokens[1], seconds=60)
        assert "$JAXCNN_TOKEN is set for process " in str(error.value) and "\n" not in str(error.value)
        with pytest.raises(HostsError, match="these did not connect"):
            meeting_of_0.result()


def test_a_card_that_was_changed_on_its_way_has_no_proof():
    message = meeting._proven({"process": 1, "clock": 0.1}, "a")
    assert meeting._is_proven(json.loads(json.dumps(message)), "a")
    assert not meeting._is_proven(message | {"process": 2}, "a")
    assert not meeting._is_proven({"process": 1}, "a") and not meeting._is_proven({"proof": 3}, "a")


def test_the_token_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("JAXCNN_TOKEN", "a")
    with first_of(2, token="a") as (port, meeting_of_0):
        place = Place("address", f"localhost:{port}", 2, 1)
        assert len(meeting.meet(place, Hosts(join_seconds=10)).roster) == len(meeting_of_0.result().roster) == 2


@pytest.mark.parametrize(
    ("coordinator", "bound"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), (platform.node(), "::"), ("192.0.2.1", "::")],
    ids=["a number", "localhost", "a name", "a number of another host"],
)
def test_process_0_listens_where_the_others_surely_come_and_nowhere_else(coordinator, bound):
    with meeting._listen(f"{coordinator}:{free_port()}") as listener:
        assert listener.getsockname()[0] == (bound if bound != "::" or socket.has_dualstack_ipv6() else "0.0.0.0")


@pytest.mark.parametrize(
    ("coordinator", "process", "bound"),
    [
        ("127.0.0.1:29", 0, "127.0.0.1:29"),
        ("localhost:29", 0, "127.0.0.1:29"),
        ("localhost:29", 1, None),
        (f"{platform.node()}:29", 0, None),
        ("192.0.2.1:29", 0, None),
    ],
)
def test_the_service_of_jax_listens_there_too(coordinator, process, bound, monkeypatch):
    started = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **options: started.update(options))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    link = types.SimpleNamespace(roster=[{"process": process, "host": "a"}], host="a")
    hosts._initialize(Place("address", coordinator, 2, process), Hosts(), link)
    assert started["coordinator_bind_address"] == bound
