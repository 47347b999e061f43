"""Find a learning rate: `python -m jaxcnn.find_rate --config=vgg16_cifar10`.

Trains a few steps while the learning rate grows, draws the loss over the rate, and suggests a tenth of the rate of the
lowest loss (Smith 2015). Writes only the picture; no run is touched. All fields of the config can be overridden.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.command import output
from jaxcnn.config import UserError
from jaxcnn.machine import writable
from jaxcnn.machine.extras import need

CONFIG = command.define_config("The config whose learning rate is looked for: a file or name, with :variant if wanted.")
STEPS = flags.DEFINE_integer("steps", 100, "Training steps; each has a larger rate.", lower_bound=10)
LOWEST = flags.DEFINE_float("lowest", 1e-6, "The first learning rate.")
HIGHEST = flags.DEFINE_float("highest", 10.0, "The last learning rate.")
OUT = command.define_path("out", "find_rate.png", "The PNG file to write; empty: none.")


def main() -> int:
    """Make the test given by the flags; return the exit code."""
    config = command.read_config(CONFIG)
    if not 0 < LOWEST.value < HIGHEST.value:
        raise UserError(
            f"--lowest={LOWEST.value:g} must be above 0 and below --highest={HIGHEST.value:g}; they are the first and "
            "the last learning rate"
        )
    out = pathlib.Path(OUT.value or "") if OUT.value else None
    if out is not None:
        writable.check_file(out)
        need("report", "the picture", "matplotlib")
    from jaxcnn.machine import mesh
    from jaxcnn.train import rate_range

    mesh.prepare_backend()
    found = rate_range.measure(config, STEPS.value, LOWEST.value, HIGHEST.value, _say)
    if len(found.rates) < STEPS.value:
        rate = found.rates[-1]
        _say(f"  ended after {len(found.rates)} steps, at a rate of {rate:.2g}: the loss grew too large")
    print(f"  lowest loss {min(found.smoothed):.4f} at {found.lowest:.2g}; steepest descent at {found.steepest:.2g}")
    print(f"suggested: --config.optim.learning_rate={found.suggestion:g}")
    if out is not None:
        found.draw(out)
        print(f"wrote {out}")
    return 0


def _say(line: str) -> None:
    print(output.fitting(line))


if __name__ == "__main__":
    command.run(main)
