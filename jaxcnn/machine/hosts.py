"""Joining the processes of a run: which launcher started them, where process 0 is, and whether all can reach it.

JAX does the joining (`jax.distributed`), and its detection of launchers is used. What is added comes before: all
processes meet at the coordinator's port (`jaxcnn.machine.meeting`) and show each other host, versions and config, so
that one that is missing, or differs from the others, is named in one line, where JAX would wait and abort. The
connections stay open: `jaxcnn.machine.heartbeat` notices through them when a process is lost.
"""

import logging
import os
from collections.abc import Mapping
from importlib import util

from jaxcnn.config import Hosts, UserError
from jaxcnn.machine.heartbeat import Cluster, Heartbeat
from jaxcnn.machine.meeting import HostsError, Place, meet

_log = logging.getLogger("jaxcnn")


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
    heartbeat = meet(place, wanted, fingerprint, run or os.environ.get("SLURM_JOB_ID", ""))
    _initialize(place, wanted, heartbeat)
    heartbeat.start()
    return Cluster(heartbeat)


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


def _initialize(place: Place, wanted: Hosts, heartbeat: Heartbeat) -> None:
    """Join JAX's own service. It can only abort, and does so after half of its time, so the lifeline has less."""
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # its SIGTERM handler would take the place of ours
    mates = [card["process"] for card in heartbeat.roster if card["host"] == heartbeat.host]
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


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
