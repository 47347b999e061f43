"""Joining the processes of a run: finds their launcher and process 0, and checks that all can reach it.

JAX joins the processes (`jax.distributed`), and its launcher detection is used. Before that, all processes meet at the
coordinator's port (`jaxcnn.machine.meeting`) and exchange host, versions and config, so that a missing or different
process is named in one line, where JAX would wait and abort. The connections stay open: `jaxcnn.machine.heartbeat`
uses them to detect the loss of a process.
"""

import logging
import os
from collections.abc import Mapping
from importlib import util

from jaxcnn.config import Hosts, UserError
from jaxcnn.machine.heartbeat import Cluster, Heartbeat
from jaxcnn.machine.meeting import HostsError, Place, meet, own_address

_log = logging.getLogger("jaxcnn")


def join(wanted: Hosts, fingerprint: object = None, run: str = "") -> Cluster:
    """Join the other processes, if there are any. Must be called before JAX starts a backend.

    Args:
      wanted: the group `hosts` of the config.
      fingerprint: plain values that must be equal in all processes, such as the config.
      run: identifies the run, for example by its workdir; empty: Slurm's job, if there is one.

    Returns:
      The cluster. For a single process this costs nothing and does not import JAX.

    Raises:
      HostsError: a process did not join in time; exit code 75.
      UserError: the launcher gives too little information, or a process differs from the others.
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
    """The launcher that started this process, as in `config.hosts.join`; "alone" if it started only one.

    Raises:
      UserError: the launcher is an MPI for which mpi4py is needed but not installed.
    """

    def several(variable: str) -> bool:
        return environment.get(variable, "").isdecimal() and int(environment[variable]) > 1

    if wanted.join != "auto":
        return wanted.join
    if wanted.coordinator or environment.get("JAX_COORDINATOR_ADDRESS"):
        return "address"
    # Before Slurm: in its allocation, mpirun starts its daemons by srun, whose variables the processes inherit.
    by_open_mpi = "OMPI_COMM_WORLD_SIZE" in environment
    if several("OMPI_COMM_WORLD_SIZE") and "OMPI_MCA_orte_hnp_uri" in environment:
        return "ompi"
    if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment and not by_open_mpi:
        if several("SLURM_NTASKS"):
            return "slurm"
    elif several("SLURM_JOB_NUM_NODES") and not by_open_mpi:
        _log.warning("this job has several nodes, but srun did not start this process, so it runs alone on one of them")
    if several("OMPI_COMM_WORLD_SIZE") or several("PMI_SIZE"):
        if util.find_spec("mpi4py") is None:
            raise UserError(
                "this process was started by an MPI under which only mpi4py can find the other processes: pip install "
                "'jaxcnn[mpi]', or set config.hosts.join=alone to run alone"
            )
        return "mpi4py"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "k8s"
    return "alone"


def find_place(wanted: Hosts, launcher: str) -> Place:
    """The place given by the launcher, through JAX; for `launcher="address"`, by config and environment.

    Raises:
      UserError: required information is missing.
    """
    if launcher == "address":
        return _stated_place(wanted, os.environ)
    from jax._src.clusters import ClusterEnv  # JAX's detection; `jax.distributed.initialize` would hide its result

    known = {kind.name: kind for kind in ClusterEnv._cluster_types}
    try:
        if not known[launcher].is_env_present():
            raise UserError(
                f"config.hosts.join={launcher}, but {launcher} did not start this process; start it under {launcher}, "
                "or set config.hosts.coordinator, config.hosts.processes and config.hosts.process"
            )
        coordinator, processes, process, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, [], launcher, wanted.join_seconds
        )
    except UserError:
        raise
    except Exception as error:  # from the launcher's library, or from JAX in an unknown environment
        raise UserError(f"config.hosts.join={launcher}: {_reason(error)}") from error
    assert coordinator is not None and processes is not None and process is not None
    return Place(launcher, coordinator, int(processes), int(process))


def _stated_place(wanted: Hosts, environment: Mapping[str, str]) -> Place:
    """The place given by config and environment."""
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
    """Join JAX's own service. It can only abort, after half of its timeout, so the heartbeat has a shorter one."""
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # its SIGTERM handler would replace ours
    mates = [card["process"] for card in heartbeat.roster if card["host"] == heartbeat.host]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    shared = len(mates) > 1 and "JAX_LOCAL_DEVICE_IDS" not in os.environ and (not visible or "," in visible)
    address, port = own_address(place.coordinator), place.coordinator.rpartition(":")[2]
    told = address and f"{f'[{address}]' if ':' in address else address}:{port}"
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.process,
            local_device_ids=[mates.index(place.process)] if shared else None,  # one GPU per process of a shared host
            cluster_detection_method="deactivate",
            coordinator_bind_address=told if place.process == 0 else None,  # JAX's own default is all addresses
            initialization_timeout=wanted.join_seconds,
            heartbeat_timeout_seconds=4 * wanted.heartbeat_seconds,
            shutdown_timeout_seconds=wanted.shutdown_seconds,
        )
    except RuntimeError as error:
        raise HostsError(f"JAX could not join {place.coordinator}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
