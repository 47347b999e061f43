"""Check whether this machine, or these hosts, are ready to train: a table of results, warnings, and what to do.

    python -m jaxcnn.doctor [--config=configs/resnet50_cifar10.py] [--workdir=runs]
    srun -N2 -n2 python -m jaxcnn.doctor --workdir=/shared/runs

Under any launcher of `jaxcnn.main`, all processes are checked together: whether they reach each other, how much their
clocks differ, and whether one is slower than the others.

Exit codes: 0 ready, with or without warnings; 2 a check failed; 75 the processes could not join.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib

from jaxcnn import command
from jaxcnn.config import Config
from jaxcnn.machine import hosts
from jaxcnn.machine.heartbeat import Cluster

CONFIG = command.define_config("The config of the run whose data is checked, and with which the hosts join.")
WORKDIR = command.define_path("workdir", "runs", "Folder for runs; the check writes a file there.")


WORDS = {"ok": "ok", "warn": "warnings", "fail": "failures"}


def main() -> int:
    """Run all checks and print the table; return the exit code."""
    config = command.read_config(CONFIG) if CONFIG.value is not None else Config()
    cluster = hosts.join(config.hosts)
    from jaxcnn.doctor.checks import examine

    try:
        checks = examine(config, pathlib.Path(WORKDIR.value), cluster)
    except BaseException as error:
        cluster.fail(error, command.exit_code(error))
        raise
    of_all = cluster.gather([check.as_list() for check in checks])
    if cluster.first:
        _show(of_all, cluster)
    cluster.end()
    return 2 if any(status == "fail" for checks in of_all for _, status, _, _ in checks) else 0


def _show(of_all: list[list[list[str]]], cluster: Cluster) -> None:
    """Print the table; equal results of all processes share one row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table("", "what", "where", "found", "what to do")
    for row, first in enumerate(of_all[0]):
        if all(checks[row] == first for checks in of_all):
            groups = [("all" if len(of_all) > 1 else "here", first)]
        else:
            places = [f"{n} ({host})" for n, host in enumerate(cluster.hosts)] or ["here"]
            groups = [(place, checks[row]) for place, checks in zip(places, of_all, strict=True)]
        for place, (name, status, found, advice) in groups:
            table.add_row(Text(status, style=colours[status]), name, place, found, advice)
    Console(highlight=False, markup=False, emoji=False).print(table)
    statuses = [status for checks in of_all for _, status, _, _ in checks]
    counts = ", ".join(f"{statuses.count(status)} {word}" for status, word in WORDS.items())
    print(f"jaxcnn: {counts}")


if __name__ == "__main__":
    command.run(main)
