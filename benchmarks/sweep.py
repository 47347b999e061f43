"""The overhead of a sweep beyond the steps of its trials.

    python -m benchmarks.sweep --workdir=runs/rates

Reads the folder of a finished sweep that one process ran without interruption, such as

    python -m jaxcnn.sweep --config=configs/sweeps/learning_rate.py:short --workdir=runs/rates --nomeasure

and prints the time of the steps, of compilation and of everything else, and their ratio to the steps. Writes <out>.json
and a section of <out>.md.
"""

import pathlib

from absl import flags

from benchmarks import report, sweep_cost
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.reporting.provenance import command_line
from jaxcnn.study import folder as files

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished sweep.")
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

SECTION = "sweep"


def main() -> int:
    """Print and write the figures; return the exit code."""
    if not WORKDIR.value:
        raise UserError("--workdir=<folder of a sweep> is missing")
    out, folder = report.check_out(OUT.value), pathlib.Path(WORKDIR.value)
    figures, swept = sweep_cost.measure(sweep_cost.read(folder)), files.read_sweep(folder)
    record = report.provenance("benchmarks.sweep", {"jaxcnn": swept["environment"]}) | figures
    record["sweep"] = command_line(swept["command"])
    print(sweep_cost.markdown(record))
    for path in report.write(out, SECTION, record, sweep_cost.markdown(record)):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    command.run(main)
