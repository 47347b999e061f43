"""Joining the processes of a run: which launcher started them, where process 0 is, and whether all can reach it.

JAX does the joining (`jax.distributed`), and its detection of launchers is used. What is added here comes before: all
processes meet at the coordinator's port and show each other host, versions and config, so that one that is missing, or
is not like the others, is named in one line, where JAX would wait and abort. The connections stay: `jaxcnn.lifeline`
notices through them when a process is lost.
"""

import contextlib
import dataclasses
import json
import logging
import os
import platform
import socket
import time
import zlib
from collections.abc import Mapping
from importlib import metadata, util
from typing import Any

from jaxcnn.config import Hosts, UserError
from jaxcnn.lifeline import RESTARTABLE, Cluster, Lifeline

VERSIONS = ("jaxcnn", "jax", "jaxlib")
_log = logging.getLogger("jaxcnn")


class HostsError(UserError):
    """The processes did not come together; the same command may succeed when it is started again."""

    exit_code = RESTARTABLE


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this process stands among those of a run, as its launcher says.

    Attributes:
      launcher: as in `config.hosts.join`.
      coordinator: <host>:<port> of process 0.
      processes, process: how many there are, and which one this is.
    """

    launcher: str
    coordinator: str
    processes: int
    process: int


def join(wanted: Hosts, fingerprint: object = None, run: str = "") -> Cluster:
    """Come together with the other processes, if there are any; to be called before JAX starts a backend.

    Args:
      wanted: the group `hosts` of the config.
      fingerprint: plain values that have to be equal on all processes, such as the config.
      run: which run it is, such as its workdir; empty: Slurm's job, if there is one.

    Returns:
      The cluster; for a process that runs alone it costs nothing, and JAX is not even imported.

    Raises:
      HostsError: a process did not come in time; exit code 75.
      UserError: the launcher says too little, or a process differs from the others.
    """
    launcher = find_launcher(wanted, os.environ)
    if launcher == "alone":
        return Cluster()
    place = find_place(wanted, launcher)
    if place.processes == 1:
        return Cluster()
    lifeline = meet(place, wanted, fingerprint, run or os.environ.get("SLURM_JOB_ID", ""))
    _initialize(place, wanted, lifeline)
    lifeline.start()
    return Cluster(lifeline)


def find_launcher(wanted: Hosts, environment: Mapping[str, str]) -> str:
    """The launcher that started this process, as in `config.hosts.join`: "alone" where it started only one.

    Raises:
      UserError: it was an MPI that needs mpi4py, which is not installed.
    """

    def several(variable: str) -> bool:
        return environment.get(variable, "").isdecimal() and int(environment[variable]) > 1

    if wanted.join != "auto":
        return wanted.join
    if wanted.coordinator or environment.get("JAX_COORDINATOR_ADDRESS"):
        return "address"
    # Before Slurm: in its allocation mpirun starts its daemons by srun, whose variables the processes inherit.
    by_open_mpi = "OMPI_COMM_WORLD_SIZE" in environment
    if several("OMPI_COMM_WORLD_SIZE") and "OMPI_MCA_orte_hnp_uri" in environment:
        return "ompi"
    if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment and not by_open_mpi:
        if several("SLURM_NTASKS"):
            return "slurm"
    elif several("SLURM_JOB_NUM_NODES") and not by_open_mpi:
        _log.warning("this job has several nodes, but srun did not start this process: it runs on one of them, alone")
    if several("OMPI_COMM_WORLD_SIZE") or several("PMI_SIZE"):
        if util.find_spec("mpi4py") is None:
            raise UserError(
                "an MPI started this process, of which only mpi4py can tell the others: pip install 'jaxcnn[mpi]', or "
                "set config.hosts.join=alone to run alone"
            )
        return "mpi4py"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "k8s"
    return "alone"


def find_place(wanted: Hosts, launcher: str) -> Place:
    """Ask the launcher, through JAX, or the config and environment for `launcher="address"`.

    Raises:
      UserError: what is needed is not there.
    """
    if launcher == "address":
        return _stated_place(wanted, os.environ)
    from jax._src.clusters import ClusterEnv  # JAX's detection, which `jax.distributed.initialize` alone would hide

    known = {kind.name: kind for kind in ClusterEnv._cluster_types}
    try:
        if not known[launcher].is_env_present():
            raise UserError(
                f"config.hosts.join={launcher}, but {launcher} did not start this process; start it so, or state the "
                "others by config.hosts.coordinator, processes and process"
            )
        coordinator, processes, process, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, [], launcher, wanted.join_seconds
        )
    except UserError:
        raise
    except Exception as error:  # of the launcher's own library, or of JAX about an environment it does not know
        raise UserError(f"config.hosts.join={launcher}: {_reason(error)}") from error
    assert coordinator is not None and processes is not None and process is not None
    return Place(launcher, coordinator, int(processes), int(process))


def _stated_place(wanted: Hosts, environment: Mapping[str, str]) -> Place:
    """The place that config and environment state."""
    coordinator = wanted.coordinator or environment.get("JAX_COORDINATOR_ADDRESS", "")
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"config.hosts.coordinator={coordinator!r} must be <host>:<port> of process 0")

    def number(stated: int, unset: int, variable: str, key: str) -> int:
        text = environment.get(variable, "") if stated == unset else str(stated)
        if not text.isdecimal():
            raise UserError(f"config.hosts.coordinator needs config.hosts.{key} (or ${variable}) as well")
        return int(text)

    processes = number(wanted.processes, 0, "JAX_NUM_PROCESSES", "processes")
    process = number(wanted.process, -1, "JAX_PROCESS_ID", "process")
    if process >= processes:
        raise UserError(f"config.hosts.process={process} must be below config.hosts.processes={processes}")
    return Place("address", coordinator, processes, process)


def meet(place: Place, wanted: Hosts, fingerprint: object = None, run: str = "") -> Lifeline:
    """Meet the other processes of `run` at the coordinator's port; the connections to process 0 stay open.

    Raises:
      HostsError: not all came in time.
      UserError: one has other versions or another `fingerprint`.
    """
    card = {
        "process": place.process,
        "processes": place.processes,
        "run": run,
        "host": platform.node(),
        "pid": os.getpid(),
        "clock": time.time(),
        "versions": {name: _version(name) for name in VERSIONS} | {"python": platform.python_version()},
        "fingerprint": zlib.crc32(json.dumps(fingerprint, sort_keys=True, default=str).encode()),
    }
    deadline = time.monotonic() + wanted.join_seconds
    gather = _receive_all if place.process == 0 else _introduce
    links, roster = gather(place, card, deadline)
    lifeline = Lifeline(place.process, roster, links, wanted.heartbeat_seconds)
    _check_likeness(roster)
    return lifeline


def _receive_all(place: Place, card: dict[str, Any], deadline: float) -> tuple[dict[int, socket.socket], list[Any]]:
    """Process 0: take in the cards of all others, then send everyone all of them."""
    port = int(place.coordinator.rpartition(":")[2])
    links: dict[int, socket.socket] = {}
    cards = {0: card}
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise HostsError(
            f"{card['host']} cannot listen on the coordinator's port {port}: {error.strerror}; name another one by "
            "JAX_COORDINATOR_PORT or config.hosts.coordinator"
        ) from error
    with listener:
        while len(cards) < place.processes:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                link, peer = listener.accept()
            except TimeoutError:
                missing = ", ".join(str(n) for n in range(place.processes) if n not in cards)
                complaint = (
                    f"of {place.processes} processes these did not come to {place.coordinator} within "
                    f"config.hosts.join_seconds: {missing}; see that they were started, and reach that address"
                )
                for link in links.values():
                    _send(link, {"error": complaint})
                raise HostsError(complaint) from None
            link.settimeout(5.0)
            other = _read_line(link)
            if not isinstance(other, dict) or _run_of(other) != _run_of(card):
                _log.warning("something that is no process of this run came to port %d from %s", port, peer[0])
                _send(link, {"stranger": f"process 0 on {card['host']} is there of another run: {_told(card)}"})
                link.close()
                continue
            other["skew"] = other["clock"] - time.time()
            if (before := links.pop(other["process"], None)) is not None:  # its first attempt timed out
                before.close()
            links[other["process"]] = link
            cards[other["process"]] = other
    roster = [cards[n] for n in range(place.processes)]
    for link in links.values():
        _send(link, {"roster": roster})
    return links, roster


def _introduce(place: Place, card: dict[str, Any], deadline: float) -> tuple[dict[int, socket.socket], list[Any]]:
    """Every other process: bring the card to process 0, and wait for those of all."""
    host, _, port = place.coordinator.rpartition(":")
    reason = "no time"
    while (left := deadline - time.monotonic()) > 0:
        try:
            link = socket.create_connection((host.strip("[]"), int(port)), timeout=min(5.0, left))
        except OSError as error:
            reason = str(error.strerror or error)
            time.sleep(0.2)
            continue
        # Process 0 waits until the deadline of its own, which may be later.
        link.settimeout(left + 10.0)
        _send(link, card | {"clock": time.time()})
        answer = _read_line(link)
        if isinstance(answer, dict) and "roster" in answer:
            return {0: link}, answer["roster"]
        link.close()
        if isinstance(answer, dict) and "error" in answer:
            raise HostsError(answer["error"])
        reason = "it answers, but is no process of this run"
        if isinstance(answer, dict) and "stranger" in answer:
            reason = f"{answer['stranger']}; this run is {_told(card)}"
        time.sleep(1.0)  # it may be about to end
    raise HostsError(
        f"process {place.process} on {card['host']} did not reach process 0 at {place.coordinator} within "
        f"config.hosts.join_seconds: {reason}; see that process 0 was started, that the name resolves and that no "
        "firewall closes the port (JAX_COORDINATOR_PORT names another)"
    )


def _run_of(card: dict[str, Any]) -> tuple[Any, Any]:
    return card.get("run"), card.get("processes")


def _told(card: dict[str, Any]) -> str:
    return f"{card['run'] or 'without --workdir'}, of {card['processes']} processes"


def _check_likeness(roster: list[dict[str, Any]]) -> None:
    """Refuse processes that would not compute the same. Raises UserError, on all of them alike."""
    first = roster[0]
    for card in roster[1:]:
        pair = f"process {card['process']} on {card['host']} and process 0 on {first['host']}"
        for name, version in first["versions"].items():
            if card["versions"].get(name) != version:
                raise UserError(f"{pair} have {name} {card['versions'].get(name)} and {version}; install one version")
        if card["fingerprint"] != first["fingerprint"]:
            raise UserError(f"{pair} were started with different configs; start all with the same flags")


def _initialize(place: Place, wanted: Hosts, lifeline: Lifeline) -> None:
    """Join JAX's own service. It can only abort, and does so after half of its time, so the lifeline has less."""
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # its SIGTERM handler would take the place of ours
    mates = [card["process"] for card in lifeline.roster if card["host"] == lifeline.host]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    shared = len(mates) > 1 and "JAX_LOCAL_DEVICE_IDS" not in os.environ and (not visible or "," in visible)
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.process,
            local_device_ids=[mates.index(place.process)] if shared else None,  # a GPU each, where a host has several
            cluster_detection_method="deactivate",
            initialization_timeout=wanted.join_seconds,
            heartbeat_timeout_seconds=4 * wanted.heartbeat_seconds,
            shutdown_timeout_seconds=wanted.shutdown_seconds,
        )
    except RuntimeError as error:
        raise HostsError(f"JAX could not join {place.coordinator}: {_reason(error)}") from error


def _send(link: socket.socket, message: Any) -> None:
    with contextlib.suppress(OSError):  # the reader finds the connection closed
        link.sendall(json.dumps(message).encode() + b"\n")


def _read_line(link: socket.socket) -> Any:
    """One JSON line, or None where none comes. Reads byte by byte, as what follows belongs to the lifeline."""
    line = bytearray()
    try:
        while not line.endswith(b"\n") and len(line) < 2**22 and (byte := link.recv(1)):
            line += byte
        return json.loads(line)
    except (OSError, ValueError):
        return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
