"""The scripts of launch/ start again what may be, and nothing else; with stand-ins for srun, mpirun, ssh and gcloud."""

import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import time

import pytest

LAUNCH = pathlib.Path(__file__).parent.parent / "launch"
# Each line of `codes` is what the next start of srun or mpirun ends with: an exit code, and the step of a checkpoint
# that it leaves. "wait" is a run that goes on until it is told to stop.
STEP = """#!/bin/sh
[ "$1" != --version ] || { echo "mpirun (Open MPI) 4.1.4"; exit 0; }
echo "${0##*/} cpus=${SRUN_CPUS_PER_TASK:-} $*" >>calls
echo "${JAXCNN_TOKEN:-}" >>tokens
read -r code step <codes
sed -i 1d codes
if [ "$code" = wait ]; then
    code=75
    trap 'touch told' TERM
    touch waiting
    until [ -e told ]; do sleep 0.05; done
    rm -f told waiting
fi
[ -z "$step" ] || mkdir -p "run/checkpoints/$step" "run/checkpoints/$((step + 1)).orbax-checkpoint-tmp"
exit "$code"
"""
STAND_INS = {
    "srun": STEP,
    "mpirun": STEP,
    "scontrol": '#!/bin/sh\necho "scontrol $*" >>calls\nexit 1\n',  # 0 would have the script wait for its end
    "scancel": '#!/bin/sh\necho "scancel $*" >>calls\ntouch told\n',
    # What enters a host: here the same machine. It tells the host, and runs the command line by a shell, as sshd does.
    "enter": '#!/bin/sh\necho "enter $1" >>calls\nexec sh -c "$2"\n',
    "gcloud": '#!/bin/sh\nfor last; do :; done\ncd /\nexec sh -c "${last#--command=}"\n',
    # In place of Python: a line for each argument, then the code of its process, or STOP.
    "python": """#!/bin/sh
process=0
for argument; do
    printf "<%s>\\n" "$argument" >>arguments
    case $argument in --config.hosts.process=*) process=${argument##*=} ;; esac
done
echo $$ >"pid.$process"
echo "${JAXCNN_TOKEN:-}" >>tokens
code=$(cat "code.$process" 2>/dev/null)
[ "$code" != STOP ] || kill -STOP $$
exit "${code:-0}"
""",
}


@dataclasses.dataclass
class Stage:
    """A folder with the stand-ins, in which the scripts are run."""

    folder: pathlib.Path

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_"))}
        environment |= {"PATH": f"{self.folder}:{os.environ['PATH']}", "JAXCNN_HOME": str(self.folder)}
        environment |= {"JAXCNN_PYTHON": str(self.folder / "python")} | variables
        return subprocess.Popen(
            ["sh", str(LAUNCH / script), *arguments],
            cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, script: str, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(script, *arguments, **variables)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def batch(self, job: int, code: str, **variables: str) -> tuple[int, str]:
        """One start of the batch script of a job by Slurm, whose srun ends with `code`."""
        self.codes(code)
        return self.run("slurm/train.sbatch", "--workdir=run", SLURM_JOB_ID=str(job), **variables)

    def codes(self, *codes: str) -> None:
        (self.folder / "codes").write_text("".join(f"{code}\n" for code in codes))

    def calls(self, name: str) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(name)]

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{name} did not come"
            time.sleep(0.02)


@pytest.fixture
def stage(tmp_path) -> Stage:
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return Stage(tmp_path)


def test_a_job_that_gets_nowhere_is_requeued_a_bounded_number_of_times_and_a_new_one_counts_anew(stage):
    for count in (1, 2):
        code, output = stage.batch(17, "137", JAXCNN_RESTARTS="2")
        assert code == 75 and f"exit code 137, restart {count} of 2 from step 0: requeued (job 17" in output
    code, output = stage.batch(17, "137", JAXCNN_RESTARTS="2")
    assert code == 137 and "given up" in output
    assert stage.calls("scontrol") == ["scontrol requeue 17"] * 2
    assert "restart 1 of 2" in stage.batch(18, "75", JAXCNN_RESTARTS="2")[1]
    assert "restart 1 of 2" in stage.batch(19, "134", JAXCNN_RESTARTS="2")[1], "what another job left does not count"


def test_a_job_whose_checkpoints_get_newer_is_requeued_without_end(stage):
    for step in (9, 10, 100):
        code, output = stage.batch(17, f"75 {step}", JAXCNN_RESTARTS="1")
        assert code == 75 and f"restart 1 of 1 from step {step}: requeued" in output
    code, output = stage.batch(17, "75 100", JAXCNN_RESTARTS="1")
    assert code == 75 and "given up" in output and "step 100" in output


@pytest.mark.parametrize("code", ["0", "1", "2", "3"])
def test_a_job_that_is_finished_or_made_a_mistake_is_not_requeued(stage, code):
    found, output = stage.batch(17, code)
    assert (found, stage.calls("scontrol")) == (int(code), []), output


def test_before_the_time_limit_all_steps_are_told_and_a_limit_that_is_too_short_is_given_up(stage):
    found = []
    for _ in range(2):
        stage.codes("wait 5")
        process = stage.start("slurm/train.sbatch", "--workdir=run", SLURM_JOB_ID="17", JAXCNN_RESTARTS="1")
        stage.wait_for("waiting")
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=120)
        found.append((process.returncode, output))
    assert "time limit near, restart 1 of 1 from step 5: requeued" in found[0][1]
    assert "given up" in found[1][1] and "step 5" in found[1][1]
    assert stage.calls("scancel") == ["scancel --signal=TERM 17"] * 2
    assert stage.calls("scontrol") == ["scontrol requeue 17"]


def test_srun_gets_the_cores_of_a_task_and_the_module_that_is_asked_for(stage):
    code, output = stage.batch(17, "0", SLURM_CPUS_PER_TASK="12", JAXCNN_MODULE="jaxcnn.doctor")
    assert code == 0, output
    (call,) = stage.calls("srun")
    assert call == f"srun cpus=12 --kill-on-bad-exit=1 {stage.folder}/python -m jaxcnn.doctor --workdir=run"


def test_mpirun_is_started_again_after_a_loss_as_often_as_is_allowed(stage):
    stage.codes("75", "137", "143")
    code, output = stage.run("mpi/train.sh", "--workdir=run", HOSTS="h1,h2", JAXCNN_RESTARTS="2")
    assert code == 75 and "start 2 of 2 after a failure" in output
    assert len(stage.calls("mpirun")) == 3
    stage.codes("75", "0")
    assert stage.run("mpi/train.sh", "--workdir=run", HOSTS="h1,h2")[0] == 0
    assert len(stage.calls("mpirun")) == 5


@pytest.mark.parametrize("code", ["1", "2", "3"])
def test_mpirun_is_not_started_again_after_a_mistake(stage, code):
    stage.codes(code)
    assert stage.run("mpi/train.sh", HOSTS="h1,h2")[0] == int(code)
    assert len(stage.calls("mpirun")) == 1


def test_open_mpi_is_told_to_hand_on_the_variables_that_matter_and_to_be_patient(stage):
    stage.codes("0")
    variables = {"TFDS_DATA_DIR": "/shared/data", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--a --b", "NCCL_DEBUG": "INFO"}
    assert stage.run("mpi/train.sh", HOSTS="h1,h2", OTHER="x", **variables)[0] == 0
    words = stage.calls("mpirun")[0].split()
    handed_on = {word for before, word in itertools.pairwise(words) if before == "-x"}
    assert handed_on >= {*variables, "JAXCNN_HOME", "JAXCNN_PYTHON"} and "OTHER" not in handed_on
    assert "--mca odls_base_sigkill_timeout 30" in " ".join(words)


def test_sigterm_is_passed_on_to_mpirun_and_the_run_is_not_started_again(stage):
    stage.codes("wait 5", "0")
    process = stage.start("mpi/train.sh", HOSTS="h1,h2")
    stage.wait_for("waiting")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert (process.returncode, len(stage.calls("mpirun"))) == (75, 1)


def by_ssh(stage: Stage, hosts: str, *flags: str, codes: tuple[str, ...] = (), **variables: str) -> tuple[int, str]:
    (stage.folder / "hosts.txt").write_text(hosts)
    for process, code in enumerate(codes):
        (stage.folder / f"code.{process}").write_text(code)
    return stage.run("ssh/train.sh", "hosts.txt", *flags, REMOTE=str(stage.folder / "enter"), **variables)


def test_by_ssh_every_host_gets_its_number_and_the_arguments_as_they_are(stage):
    flags = ["--workdir=my run", "--config=it's.py", "--config.a=$HOME\\n`b`*"]
    code, output = by_ssh(stage, "# comment\nh1 slots=8\n\n h2 # the last\n", *flags)
    assert code == 0, output
    assert sorted(stage.calls("enter")) == ["enter h1", "enter h2"]
    arguments = (stage.folder / "arguments").read_text().splitlines()
    for flag in (*flags, "--config.hosts.coordinator=h1:7733", "--config.hosts.processes=2"):
        assert arguments.count(f"<{flag}>") == 2
    assert {"<--config.hosts.process=0>", "<--config.hosts.process=1>"} <= set(arguments)


def test_by_ssh_a_run_is_started_again_after_a_loss_as_often_as_is_allowed_and_not_after_a_mistake(stage):
    code, output = by_ssh(stage, "h1\nh2\n", codes=("75", "137"), JAXCNN_RESTARTS="1")
    assert (code, len(stage.calls("enter"))) == (75, 4), output
    code, output = by_ssh(stage, "h1\nh2\n", codes=("2", "75"))
    assert (code, len(stage.calls("enter"))) == (2, 6), output


@pytest.mark.parametrize("hosts", ["", "\n# none\n"])
def test_a_file_that_names_no_host_is_refused(stage, hosts):
    code, output = by_ssh(stage, hosts)
    assert code == 2 and "names no host" in output and stage.calls("enter") == []


def test_by_ssh_a_stopped_process_is_killed_after_the_grace(stage):
    code, output = by_ssh(stage, "h1\nh2\n", codes=("75", "STOP"), JAXCNN_RESTARTS="0", JAXCNN_GRACE="1")
    assert code == 75, output
    number = int((stage.folder / "pid.1").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_the_hosts_of_a_tpu_get_the_arguments_as_they_are(stage):
    flags = ["--workdir=my run", "--config=it's.py", "--config.a=$HOME`b`*"]
    code, output = stage.run("gcp/train.sh", *flags, TPU="my-tpu", ZONE="us-west4-a", JAXCNN_MODULE="jaxcnn.doctor")
    assert code == 0, output
    arguments = (stage.folder / "arguments").read_text().splitlines()
    expected = ["-m", "jaxcnn.doctor", *flags, "--config.hosts.join=gcetpu"]
    assert arguments == [f"<{argument}>" for argument in expected]


def by_slurm(stage, **variables):
    return stage.batch(17, "0", **variables)


def by_mpi(stage, **variables):
    (stage.folder / "codes").write_text("0\n")
    return stage.run("mpi/train.sh", "--workdir=run", HOSTS="h1,h2", **variables)


def by_two_hosts(stage, **variables):
    return by_ssh(stage, "h1\nh2\n", "--workdir=run", **variables)


@pytest.mark.parametrize(("start", "processes"), [(by_slurm, 1), (by_mpi, 1), (by_two_hosts, 2)])
def test_the_processes_of_a_start_get_one_secret_of_their_own_which_no_command_line_shows(stage, start, processes):
    for variables in ({}, {}, {"JAXCNN_TOKEN": "the user's own"}):
        code, output = start(stage, **variables)
        assert code == 0, output
    tokens = (stage.folder / "tokens").read_text().splitlines()
    first, second, own = (set(tokens[i * processes : (i + 1) * processes]) for i in range(3))
    assert len(first) == len(second) == 1 and first != second and own == {"the user's own"}
    assert len(first.pop()) == 32
    for written in ("calls", "arguments"):
        if (stage.folder / written).exists():
            assert not any(token in (stage.folder / written).read_text() for token in tokens)
