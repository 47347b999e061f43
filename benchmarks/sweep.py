"""What a sweep costs beyond the steps of its trials.

    python -m benchmarks.sweep --workdir=runs/rates

Reads the folder of a finished sweep that one process ran without a stop, such as

    python -m jaxcnn.sweep --config=configs/sweeps/learning_rate.py:short --workdir=runs/rates --nomeasure

and prints the time of the steps, of compiling and of everything else, and their ratio to the steps.
"""

import datetime
import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.study import folder as files

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished sweep.")


def main() -> int:
    """Print the figures; return the exit code."""
    if not WORKDIR.value:
        raise UserError("--workdir=<folder of a sweep> is missing")
    rows = read(pathlib.Path(WORKDIR.value))
    steps = sum(row["train_seconds"] for row in rows)
    evaluation = sum(row["eval_seconds"] for row in rows)
    compiling = rows[0]["compile_seconds"]
    whole = _seconds(rows[0]["began"], rows[-1]["ended"])
    print(f"{len(rows)} trials from the first's start to the last's end: {whole:.1f} s")
    print(f"  steps {steps:.1f} s, evaluation {evaluation:.1f} s, the first trial's programs {compiling:.1f} s")
    later = [row["compile_seconds"] for row in rows[1:]]
    print(f"  the same phase of the other trials, which compile nothing: {max(later, default=0.0):.2f} s at most")
    print(f"  without the one compile: {(whole - compiling) / steps:.3f} x the time of the steps")
    return 0


def read(folder: pathlib.Path) -> list[dict]:
    """The complete trials, in the order they ran in."""
    rows = [files.read_trial(path) for path in sorted((folder / files.TRIALS).glob("*"))]
    complete = [row for row in rows if row is not None and row["state"] == "complete" and row["starts"] == 1]
    if not complete or len({row["worker"] for row in complete}) > 1:
        raise UserError(f"{folder} is not a sweep that one process ran without a stop")
    return sorted(complete, key=lambda row: row["began"])


def _seconds(began: str, ended: str) -> float:
    return (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(began)).total_seconds()


if __name__ == "__main__":
    command.run(main)
