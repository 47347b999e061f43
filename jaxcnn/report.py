"""Make tables, plots and one page from finished, running or failed runs.

    python -m jaxcnn.report <folder> [<folder> …] [--out=<folder>]

A folder is the workdir of a run, a folder of such workdirs, or the workdir of a sweep. Writes `report.html` (one
self-contained file), `tables.md`, `tables.tex` (booktabs), `plots/*.png` and `*.svg`, and `report.json` with all
figures.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib
import sys

from absl import flags

from jaxcnn import command
from jaxcnn.command import output
from jaxcnn.config import UserError
from jaxcnn.machine import paths
from jaxcnn.machine.extras import need

OUT = command.define_path("out", None, "Folder to write to; default: report/ in the first folder given.")
TITLE = flags.DEFINE_string("title", None, "Title of the page; default: the name of the sweep or folder.")
BEST_ON_TEST = flags.DEFINE_bool(
    "best_on_test", False, "Also show the setting with the highest test accuracy, labelled as a biased figure."
)
EXPLAIN = flags.DEFINE_string(
    "explain", "", "Also show the most confused pairs of classes, with maps by this method of docs/explain.md, such as "
    "gradcam; needs a checkpoint and the data of the run."
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Write the report of the given folders; return the exit code."""
    if not arguments:
        raise UserError("no folder was given; for example python -m jaxcnn.report runs/paper")
    folders = [paths.expand(argument) for argument in arguments]
    need("report", "a report")
    from jaxcnn.reporting import explained, write

    if EXPLAIN.value:
        explained.check(EXPLAIN.value)
    out = pathlib.Path(OUT.value) if OUT.value else folders[0] / "report"
    line = " ".join(["python -m jaxcnn.report", *sys.argv[1:]])
    remarks = write.report(
        folders, out, title=TITLE.value, best_on_test=BEST_ON_TEST.value, explain=EXPLAIN.value, command=line
    )
    for remark in remarks:
        print(output.fitting(remark))
    return 0


if __name__ == "__main__":
    command.run(main, arguments=True)
