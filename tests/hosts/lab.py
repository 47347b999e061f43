"""Hosts on one machine: network namespaces with addresses and names of their own, and a real Slurm on them.

Needs root, iproute2, munge and slurm-wlm (Debian). Nothing of the machine's own network is touched.
"""

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Self

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = "10.78.0"
SWITCH = "jaxcnn-sw"
SLURM_CONF = """
ClusterName=lab
SlurmctldHost=ctl({network}.254)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=17817
SlurmdPort=17818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
MinJobAge=600
SlurmdTimeout=15
SlurmctldTimeout=30
PlugStackConfig=/dev/null
"""
# Jobs of "low" are preempted by those of "urgent": signalled, and half a minute later queued again.
PARTITIONS = {
    "all": "Default=YES",
    "low": "PriorityTier=1 PreemptMode=REQUEUE GraceTime=30",
    "urgent": "PriorityTier=9 PreemptMode=OFF",
}


def sh(*command: str, check: bool = True, **options) -> str:
    """Run a command; its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other test run on this machine has a lab, whose namespaces have the same names."""
    with (pathlib.Path(tempfile.gettempdir()) / "jaxcnn-lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Hosts:
    """`count` hosts h1, h2, …, and a controller, host 0, on one network.

    Attributes:
      folder: folder for daemons, which all hosts see.
    """

    def __init__(self, folder: pathlib.Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        names = ["127.0.0.1 localhost", f"{NETWORK}.254 ctl", *(f"{NETWORK}.{i} h{i}" for i in range(1, count + 1))]
        (folder / "hosts").write_text("\n".join(names) + "\n")

    def __enter__(self) -> Self:
        self._remove_hosts()
        sh("ip", "netns", "add", SWITCH)
        self._ip(SWITCH, "link set lo up")
        self._ip(SWITCH, "link add br0 type bridge")
        self._ip(SWITCH, f"addr add {NETWORK}.254/24 dev br0")
        self._ip(SWITCH, "link set br0 up")
        for i in range(1, self.count + 1):
            sh("ip", "netns", "add", f"jaxcnn-h{i}")
            self._ip(f"jaxcnn-h{i}", "link set lo up")
            sh(*f"ip link add eth0 netns jaxcnn-h{i} type veth peer name p{i} netns {SWITCH}".split())
            self._ip(f"jaxcnn-h{i}", f"addr add {NETWORK}.{i}/24 dev eth0")
            self._ip(f"jaxcnn-h{i}", "link set eth0 up")
            self._ip(SWITCH, f"link set p{i} master br0 up")
        return self

    def __exit__(self, *_: object) -> None:
        self._remove_hosts()

    def command(self, host: int, *command: str) -> list[str]:
        """A command line that runs a command on a host: its network, its hostname, its /etc/hosts."""
        name, space = ("ctl", SWITCH) if host == 0 else (f"h{host}", f"jaxcnn-h{host}")
        # nsenter, and not `ip netns exec`, which hides /sys/fs/cgroup, without which slurmd does not start.
        inside = f'hostname {name}; mount --bind "{self.folder}/hosts" /etc/hosts; exec "$@"'
        return [
            "nsenter",
            f"--net=/run/netns/{space}",
            "unshare",
            "--uts",
            "--mount",
            "sh",
            "-c",
            inside,
            "sh",
            *command,
        ]

    def on(self, host: int, *command: str, check: bool = True) -> str:
        """Run a command on a host; its output."""
        return sh(*self.command(host, *command), check=check, env=self.env, cwd=ROOT)

    def link(self, host: int, state: str) -> None:
        """Cut a host off ("down"), or heal its link ("up")."""
        self._ip(SWITCH, f"link set p{host} {state}")

    def processes(self, host: int, words: str) -> list[int]:
        """Numbers of the Python processes on a host whose command line has `words`, parents first."""
        found = []
        for number in sh("ip", "netns", "pids", f"jaxcnn-h{host}").split():
            with contextlib.suppress(OSError):
                line = pathlib.Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words in line and "python" in line.partition(" ")[0]:
                    found.append(int(number))
        return sorted(found)

    def _ip(self, space: str, arguments: str) -> None:
        sh("ip", "-n", space, *arguments.split())

    def _remove_hosts(self) -> None:
        for line in sh("ip", "netns", "list").splitlines():
            if (space := line.split()[0]).startswith("jaxcnn-"):
                for number in sh("ip", "netns", "pids", space).split():  # what a failed test, or Slurm, left
                    with contextlib.suppress(OSError):
                        os.kill(int(number), signal.SIGKILL)
                sh("ip", "netns", "del", space)


class Lab(Hosts):
    """Hosts with a Slurm on them."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._start_slurm()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for file in [*self.folder.glob("slurmd.*.pid"), *self.folder.glob("*ctld.pid"), self.folder / "munged.pid"]:
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(file.read_text()), number)
            time.sleep(0.5)
        super().__exit__()

    def sbatch(self, *arguments: str, **variables: str) -> int:
        """Submit a job; its number."""
        exported = "ALL," + ",".join(f"{name}={value}" for name, value in variables.items())
        return int(self.on(0, "sbatch", "--parsable", f"--export={exported}", *arguments))

    def job(self, number: int, field: str) -> str:
        """A field of `scontrol show job`, such as JobState or Restarts."""
        words = self.on(0, "scontrol", "show", "job", str(number)).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{field}="))

    def hosts_of(self, number: int) -> list[str]:
        """The hosts that a job runs on, or ran on last."""
        return self.on(0, "scontrol", "show", "hostnames", self.job(number, "NodeList")).split()

    def wait(self, number: int, *states: str, seconds: float = 240) -> str:
        """Wait until a job is in one of the states, at once starting it where it waits after a requeue."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.job(number, "JobState")
            if state in states:
                return state
            self.hurry(number)
            time.sleep(0.5)
        raise AssertionError(f"job {number} is {state}, not {states}")

    def hurry(self, number: int) -> None:
        """Start a job at once where it waits the two minutes after a requeue."""
        if self.job(number, "JobState") == "PENDING" and self.job(number, "Reason") == "BeginTime":
            time.sleep(3)  # within a second of the requeue Slurm 22.05 gives a credential that it has just revoked
            self.on(0, "scontrol", "update", f"JobId={number}", "StartTime=now", check=False)

    def _start_slurm(self) -> None:
        hosts = [f"h{i}" for i in range(1, self.count + 1)]
        lines = [SLURM_CONF.format(network=NETWORK, folder=self.folder)]
        lines += [f"NodeName={h} NodeAddr={NETWORK}.{h[1:]} CPUs=2 RealMemory=2000 State=UNKNOWN" for h in hosts]
        lines += [
            f"PartitionName={name} Nodes={','.join(hosts)} MaxTime=INFINITE State=UP {options}"
            for name, options in PARTITIONS.items()
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        for name in ("state", "key", *(f"spool.{h}" for h in hosts)):
            (self.folder / name).mkdir(mode=0o700)
        key = self.folder / "key" / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        sh(
            "munged", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}",
            f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        conf = self.env["SLURM_CONF"]
        self.on(0, "slurmctld", "-c", "-f", conf)
        for i in range(1, self.count + 1):
            self.on(i, "slurmd", "-f", conf, "-N", f"h{i}")
        deadline = time.monotonic() + 60
        while len(self.on(0, "sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split()) < self.count:
            if time.monotonic() > deadline:
                raise AssertionError("Slurm's nodes did not come up")
            time.sleep(0.5)
