"""Joining: who started a process, where the others are, and what happens when they do not come or differ."""

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxcnn import hosts
from jaxcnn.config import Hosts, UserError
from jaxcnn.hosts import HostsError, Place, find_launcher

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
        "import sys; from jaxcnn import hosts, config; cluster = hosts.join(config.Hosts()); "
        "assert cluster.alone and cluster.first and cluster.gather(3) == [3]; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def meet_all(count: int, present: list[int], fingerprints=lambda process: 0, seconds: int = 5) -> list:
    """What `meet` gives to each process that is present: a lifeline, or the error that it raised."""
    port = free_port()

    def one(process: int):
        try:
            place = Place("address", f"localhost:{port}", count, process)
            return hosts.meet(place, Hosts(join_seconds=seconds), fingerprints(process))
        except UserError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, present))


def test_processes_that_meet_know_each_other():
    lifelines = meet_all(3, [2, 0, 1])
    assert [lifeline.process for lifeline in lifelines] == [2, 0, 1]
    for lifeline in lifelines:
        assert [card["process"] for card in lifeline.roster] == [0, 1, 2]


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
    monkeypatch.setattr(hosts, "_version", lambda package: str(threading.get_ident()))
    errors = meet_all(2, [0, 1])
    assert all("install one version" in str(error) for error in errors)


def test_whatever_else_comes_to_the_port_is_sent_away():
    port = free_port()
    place = Place("address", f"localhost:{port}", 2, 0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hosts.meet, place, Hosts(join_seconds=10))
        for _ in range(100):
            try:
                stranger = socket.create_connection(("localhost", port))
                break
            except OSError:
                threading.Event().wait(0.05)
        stranger.sendall(b"GET / HTTP/1.1\n")
        second = hosts.meet(Place("address", f"localhost:{port}", 2, 1), Hosts(join_seconds=10))
        assert len(first.result().roster) == len(second.roster) == 2
    stranger.close()


def test_a_process_of_another_run_is_sent_away_and_told_which_run_is_there():
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        place = Place("address", f"localhost:{port}", 2, 0)
        first = pool.submit(hosts.meet, place, Hosts(join_seconds=10), run="/shared/a")
        other = Place("address", f"localhost:{port}", 2, 1)
        with pytest.raises(HostsError) as error:
            hosts.meet(other, Hosts(join_seconds=2), run="/shared/b")
        assert "is there of another run: /shared/a, of 2 processes; this run is /shared/b" in str(error.value)
        assert len(hosts.meet(other, Hosts(join_seconds=10), run="/shared/a").roster) == 2
        assert len(first.result().roster) == 2
