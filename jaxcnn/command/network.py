"""The flags that choose the trained network of a run, the same in all commands that use one."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import output
from jaxcnn.config import UserError

if TYPE_CHECKING:
    from jaxcnn.train.trained import Trained

CHECKPOINT = (
    "The checkpoint: tested (that of the run's test: the last, or with config.run.test_with=best the best on "
    "validation), last, best or a step."
)

flags.disclaim_key_flags()  # flags defined here belong to the command, and its --help shows them


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The values of the flags --workdir, --checkpoint and --weights."""

    workdir: Any
    checkpoint: Any
    weights: Any

    def folder(self) -> pathlib.Path:
        """The folder of the run.

        Raises:
          UserError: none is given.
        """
        if not self.workdir.value:
            raise UserError("--workdir=<folder of a run> is missing")
        return pathlib.Path(self.workdir.value)

    def load(self, devices: int = 1, folder: pathlib.Path | None = None) -> "Trained":
        """The network, on `devices` devices (0: all); programs kept by earlier commands are used. Prints its remarks.

        Args:
          devices: number of devices.
          folder: folder of a run other than that of --workdir.

        Raises:
          UserError: there is no such network, or its files are damaged.
        """
        from jaxcnn.learn import executables
        from jaxcnn.train import trained

        executables.keep()
        network, remarks = trained.load(folder or self.folder(), self.checkpoint.value, self.weights.value, devices)
        for remark in remarks:
            print(output.fitting(f"jaxcnn: {remark}"))
        return network


def define() -> Chosen:
    """Define the flags that choose a network."""
    weights = "Weights of the step, or their average; default: the average if it is kept."
    return Chosen(
        command.define_path("workdir", None, "Folder of the run."),
        flags.DEFINE_string("checkpoint", "tested", CHECKPOINT),
        flags.DEFINE_enum("weights", "", ["", "last", "ema"], weights),
    )
