"""Saves a network that was made from another one as a new run, which has made no step yet.

Its folder is like that of any run: it can be evaluated, predict, be exported and served, and other runs start from it.
"""

import dataclasses
import json
import pathlib

from jaxcnn.config import UserError, to_dict
from jaxcnn.learn import programs
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine import whole_files
from jaxcnn.tasks import by_name
from jaxcnn.train import environment, normalization, seals, starting, workdir
from jaxcnn.train.checkpoint import Checkpoints
from jaxcnn.train.session import Progress
from jaxcnn.train.trained import Trained

TRAIN_ON = "train_on.py"
_CONFIG = '''"""The run of this folder, to train on from its weights with a schedule of its own:

    python -m jaxcnn.main --config={name} --config.run.epochs=20 --config.optim.learning_rate=0.01
"""

import pathlib

from jaxcnn.config import recipes


def get_config():
    return recipes.from_run(pathlib.Path(__file__).parent)
'''


def check(folder: pathlib.Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
      UserError: it does.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder} is a file; give a folder that is new or empty")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out={folder} is not empty; give a folder that is new or empty")


def write(made: Trained, origin: pathlib.Path, folder: pathlib.Path, command: list[str]) -> None:
    """Write a network as a run at step 0.

    Args:
      made: the network; its config is that of the run.
      origin: the workdir of the run whose data and normalisation it has.
      folder: the workdir, new.
      command: the command line, for the record.

    Raises:
      UserError: the folder cannot be written.
    """
    config, facts = made.config, workdir.read_sealed(origin / workdir.DATA)
    with workdir.claim(folder):
        workdir.write_config(folder, config)
        workdir.write_sealed(folder / workdir.DATA, facts)
        record = {
            "step": 0,
            "progress": dataclasses.asdict(Progress()),
            "config": to_dict(config),
            "devices": meshes.describe(made.mesh),
            "data": facts,
            "packages": environment.packages(),
        }
        if config.augment.normalize:
            kept = workdir.read_sealed(origin / normalization.FILE)
            workdir.write_sealed(folder / normalization.FILE, kept)
            record["normalization"] = {name: kept[name] for name in ("mean", "std")}
        environment.write(folder, command)
        whole_files.write(folder / TRAIN_ON, _CONFIG.format(name=json.dumps(str(folder / TRAIN_ON))[1:-1]))
        hyper = make_hyper(config)
        of_task = {name: hyper.task[name] for name in made.spec.task.loss.settings if name in hyper.task}
        state = programs.init_state(made.spec, made.mesh)(dataclasses.replace(hyper, task=of_task))
        state = starting.with_arrays(state, made.spec, seals.on_host(made.variables))
        hyper = dataclasses.replace(
            state.hyper, task={name: hyper.task[name] for name in by_name.settings(config.task)}
        )
        checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint)
        checkpoints.save(dataclasses.replace(state, hyper=hyper), record, None)
        checkpoints.wait()
        checkpoints.close()
