"""Check whether this machine, or these hosts, are ready to train: a table of results, warnings, and what to do.

    python -m jaxcnn.doctor [--config=configs/resnet50_cifar10.py] [--workdir=runs]
    srun -N2 -n2 python -m jaxcnn.doctor --workdir=/shared/runs
    python -m jaxcnn.doctor --data --config=quickstart --config.data.source=folder:photos

Under any launcher of `jaxcnn.main`, all processes are checked together: whether they reach each other, how much their
clocks differ, and whether one is slower than the others.

With --data, the images of the config are checked instead, and all of them: unreadable ones, sizes, classes, and images
that are equal or look alike, within the splits and between them.

Exit codes: 0 ready, with or without warnings; 2 a check failed, such as a test image that is also in train; 75 the
processes could not join.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib
from typing import Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import output, unused
from jaxcnn.config import Config, UserError
from jaxcnn.machine import hosts, writable
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.text import shown

CONFIG = command.define_config("The config of the run whose data is checked, and with which the hosts join.")
WORKDIR = command.define_path("workdir", "runs", "Folder for runs; the check writes a file there.")
OUT = command.define_path("out", "", "With --data: a PNG of training images with their boxes.")
DATA = flags.DEFINE_boolean("data", False, "Check the images of --config instead: every one is read.")

SHOWN = 20  # classes shown of each end of a long list
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def main() -> int:
    """Run all checks and print the table; return the exit code."""
    if DATA.value:
        return _data()
    unused.refuse(["out"], "is for --data")
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
    from rich.table import Table
    from rich.text import Text

    table = Table("", "what", "where", "found", "what to do")
    for row, first in enumerate(of_all[0]):
        if all(checks[row] == first for checks in of_all):
            groups = [("all" if len(of_all) > 1 else "here", first)]
        else:
            places = [f"{n} ({host})" for n, host in enumerate(cluster.hosts)] or ["here"]
            groups = [(place, checks[row]) for place, checks in zip(places, of_all, strict=True)]
        for place, (name, status, found, advice) in groups:
            table.add_row(Text(status, style=COLOURS[status]), name, place, found, advice)
    _console().print(table)
    _count([status for checks in of_all for _, status, _, _ in checks])


def _data() -> int:
    """Check the images of the config and print what was found; return the exit code."""
    if CONFIG.value is None:
        raise UserError("--data needs --config=<file or name>; --config.data.source=<source> may name other data")
    config = command.read_config(CONFIG)
    if OUT.value:
        writable.check_file(pathlib.Path(OUT.value))
    from rich.table import Table
    from rich.text import Text

    from jaxcnn.doctor import data

    found = data.examine(config.data, config.task)
    console = _console()
    names = [name for name, _, _ in found.splits]
    if names:
        splits, classes = Table("split", "examples", "images"), Table("class", *names)
        for name, count, what in found.splits:
            splits.add_row(name, f"{count:,}", what)
        rows = found.classes
        if len(rows) > 2 * SHOWN:
            by_size = sorted(rows, key=lambda row: -row[1][0])
            left_out = (f"{len(rows) - 2 * SHOWN} more", ())
            rows = [*by_size[:SHOWN], left_out, *by_size[-SHOWN:]]
        for name, counts in rows:
            classes.add_row(shown(name), *(f"{count:,}" for count in counts))
        console.print(splits, classes)
    for result in found.results:
        advice = f"; {result.advice}" if result.advice else ""
        text = f"{result.name}: {result.found}{advice}"
        line = Text(output.fitting(f"{result.status:<4} {shown(text)}"))
        line.stylize(COLOURS[result.status], 0, len(result.status))
        console.print(line, soft_wrap=True)
        for example in result.examples:
            console.print(output.fitting(f"       {shown(example)}"), soft_wrap=True)
    for note in found.notes:
        console.print(output.fitting(f"note {shown(note)}"), soft_wrap=True)
    if OUT.value and names:
        console.print("wrote", f"{OUT.value}: {data.draw(config.data, config.task, pathlib.Path(OUT.value))} images")
    _count([result.status for result in found.results])
    return found.exit_code


def _count(statuses: list[str]) -> None:
    from jaxcnn.doctor.checks import count

    print(f"jaxcnn: {count(statuses)}")


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


if __name__ == "__main__":
    command.run(main)
