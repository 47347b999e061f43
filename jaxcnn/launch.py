"""Start a run on several hosts of a scheduler.

    python -m jaxcnn.launch slurm --nodes=2 [--gpus-per-node=8] [--cpus-per-task=12] [--time=24:00:00] \
        [--sbatch=<option>] [--dry-run] -- --config=configs/resnet50_cifar10.py --workdir=/shared/runs/resnet50

Fills in `launch/slurm/train.sbatch`, saves the result in the workdir and submits it. Arguments after `--` go to
`python -m jaxcnn.main`. `launch/` also has files for starting without a scheduler, and for Kubernetes.

Exit codes: 0 submitted; 2 an error, reported in one line.
"""

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys

from jaxcnn import command
from jaxcnn.command import output
from jaxcnn.config import UserError
from jaxcnn.machine import paths

SCRIPT = paths.shipped("launch") / "slurm" / "train.sbatch"


def filled_in(script: str, options: dict[str, str], more: list[str]) -> str:
    """The batch script with sbatch `options` replacing its own, followed by the options `more`.

    An option with an empty value keeps the value of the script.
    """
    lines = []
    for name, value in options.items():
        if value:
            line = f"#SBATCH --{name}={_quoted(value)}"
            script, replaced = re.subn(rf"(?m)^#SBATCH --{name}=.*$", line.replace("\\", r"\\"), script)
            if not replaced:
                lines.append(line)
    lines += [f"#SBATCH {option}" for option in more]
    head, directive, rest = script.partition("#SBATCH ")
    return head + "".join(f"{line}\n" for line in lines) + directive + rest


def _quoted(value: str) -> str:
    """The text quoted for an sbatch line in a script."""
    return value if re.fullmatch(r"[^\s\"'#\\]+", value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def submit(arguments: list[str]) -> str:
    """Fill in the script, save it and submit it; return a message for the user.

    Raises:
      UserError: a flag is missing, or Slurm refuses.
    """
    parser = argparse.ArgumentParser(prog="python -m jaxcnn.launch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scheduler", choices=["slurm"])
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=0, help="one task is started for each; 0: a CPU run")
    parser.add_argument(
        "--cpus-per-task", type=int, default=0, help="cores for each task; 0: the default of the cluster"
    )
    parser.add_argument(
        "--time", default="", help="time limit in a form that sbatch accepts; default: that of the script"
    )
    parser.add_argument("--job-name", default="")
    parser.add_argument(
        "--sbatch", action="append", default=[], help="another option of sbatch, such as --sbatch=--partition=a"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the script, and do not submit it")
    own, _, flags = _split(arguments)
    options = parser.parse_args(own)
    workdir = next((flag.partition("=")[2] for flag in flags if flag.startswith("--workdir=")), "")
    if workdir.startswith("~"):  # sbatch does not expand it, and the job may have another home
        here = str(paths.expand(workdir, "--workdir="))
        flags = [f"--workdir={here}" if flag == f"--workdir={workdir}" else flag for flag in flags]
        workdir = here
    if not workdir or not any(flag.startswith("--config=") for flag in flags):
        raise UserError(
            "the flags of the run come after --: at least --config=… and --workdir=… (a folder that all hosts share)"
        )
    gpus = options.gpus_per_node
    script = filled_in(
        SCRIPT.read_text(encoding="utf-8"),
        {
            "nodes": str(options.nodes),
            "gpus-per-node": str(gpus or ""),
            "ntasks-per-node": str(gpus or 1),
            "cpus-per-task": str(options.cpus_per_task or ""),
            "time": options.time,
            "job-name": options.job_name or pathlib.Path(workdir).name,
            "output": f"{workdir.replace('%', '%%')}/slurm-%j.log",
        },
        options.sbatch,
    )
    if options.dry_run:
        return script
    home = paths.clone()
    variables = os.environ if home else {"JAXCNN_PYTHON": sys.executable} | os.environ
    home = home or pathlib.Path.cwd()
    folder = home / workdir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.sbatch").write_text(script, encoding="utf-8", errors="surrogateescape")
        done = subprocess.run(
            ["sbatch", "--parsable", str(folder / "train.sbatch"), *flags],
            cwd=home, env=variables,
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UserError("sbatch was not found; run this command on a host of the cluster") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            "sbatch did not answer within a minute; check whether Slurm is running (sinfo), and look for the job in "
            "squeue"
        ) from error
    except OSError as error:
        raise UserError(f"--workdir={folder} cannot be written: {error.strerror}") from error
    job = done.stdout.strip().partition(";")[0]  # <job>;<cluster> with several clusters
    return f"job {job}: squeue -j {job}; tail -F {shlex.quote(f'{folder}/slurm-{job}.log')}; scancel {job}"


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    where = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:where], "--", arguments[where + 1 :]


if __name__ == "__main__":
    output.keep()
    command.accept_any_text()
    try:
        print(submit(sys.argv[1:]), flush=True)
        if lost := output.failure():
            print(f"jaxcnn: some of the output could not be written: {lost.strerror}", file=sys.stderr)
    except UserError as error:
        print(f"jaxcnn: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
