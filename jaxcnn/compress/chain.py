"""The training of Deep Compression: prunes a trained network, trains what is left, and trains the shared values.

Each training is an ordinary run in the folder `deep` of the workdir, which a later call with the same options
continues, or finds finished. Nothing here trains by itself.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxcnn.compress import deep
from jaxcnn.config import Config, Init, Optim, Prune, UserError, from_config_dict, to_dict
from jaxcnn.config.fields import Schedule
from jaxcnn.data import place
from jaxcnn.machine import whole_files
from jaxcnn.text import shown
from jaxcnn.train import exported, seals, trained
from jaxcnn.train.trained import Trained
from jaxcnn.weights import compressed
from jaxcnn.weights.shared import Shared

if TYPE_CHECKING:
    from jaxcnn.data.batch import Split

FOLDER, PRUNED, TUNED = "deep", "pruned", "tuned"
WARM_UP = 0.1  # share of each training
END = 0.5  # share of the first training at which the sparsity is reached
Train = Callable[[Config, pathlib.Path], Any]  # trains a run in a folder, continues it, or finds it finished


@dataclasses.dataclass(frozen=True)
class Training:
    """The two trainings.

    Attributes:
      sparsity: share of the weights that are pruned in the first one.
      prune_epochs, prune_rate: length of the first one, and its peak rate over that of the run.
      tune_epochs, tune_rate: length of the second one, 0: none; and its peak rate.
      data: where the data of the run is now; empty: where it was.
    """

    sparsity: float
    prune_epochs: float
    prune_rate: float
    tune_epochs: float
    tune_rate: float
    data: str = ""


def train(
    network: Trained,
    folder: pathlib.Path,
    split: "Split",
    bits: deep.Bits,
    options: Training,
    run: Train,
    say: Callable[[str], None],
) -> tuple[Trained, pathlib.Path, list[deep.Row]]:
    """Prune a network and train it, share its weights and train these; return it, its folder, and a row for each step.

    Args:
      network: the trained network.
      folder: the workdir of its run.
      split: the examples of the figures.
      bits: bits of the shared values.
      options: what is trained.
      run: trains.
      say: called with what is done next.

    Raises:
      UserError: a run in these folders has other options, or cannot be trained.
    """
    where = folder / FOLDER
    where.mkdir(exist_ok=True)  # in the folder of the run, where checkpoints were written
    config = dataclasses.replace(network.config, data=place.at(network.config.data, options.data))
    arrays = seals.on_host(network.variables)
    size = sum(each.nbytes for each in arrays.values())
    rows = [deep.Row("as trained: float32", size, {}, network.evaluate(split))]

    start = _started(where, "trained", arrays, network)
    say(f"pruning to {options.sparsity:g}, training for {options.prune_epochs:g} epochs in {where / PRUNED}")
    run(_to_prune(config, start, options), where / PRUNED)
    made = _loaded(where / PRUNED)
    arrays = seals.on_host(made.variables)
    name = "pruned, and trained: float32 and indices"
    rows.append(deep.Row(name, deep.size_with_indices(arrays), {}, made.evaluate(split)))
    if not options.tune_epochs:
        return made, where / PRUNED, rows

    say("sharing weights")
    shared = deep.share(arrays, bits)
    begun = deep.with_arrays(made, deep.decoded_of(shared))
    rows.append(deep.Row(deep.SHARED_VALUES, deep.size_of_shared(shared), {}, begun.evaluate(split)))
    start = _started(where, "shared", shared, begun)
    say(f"training the shared values for {options.tune_epochs:g} epochs in {where / TUNED}")
    run(_to_tune(config, start, options, deep.most_values(shared)), where / TUNED)
    return _loaded(where / TUNED), where / TUNED, rows


def joined(trained_rows: list[deep.Row], coded: list[deep.Row]) -> list[deep.Row]:
    """The rows of the trainings and, after them, those of `deep.compress`, without a step that was there already."""
    forms, (_, shared, words) = coded[:-3], coded[-3:]
    forms = [dataclasses.replace(row, step=f"these weights as {row.step}") for row in forms]
    if any(row.step == deep.SHARED_VALUES for row in trained_rows):
        shared = dataclasses.replace(shared, step=f"trained {shared.step}")
    return [*trained_rows, *forms, shared, words]


def _started(where: pathlib.Path, name: str, arrays: Mapping[str, Shared | Any], network: Trained) -> pathlib.Path:
    """A file of weights that a run starts from; its name tells its content, so a run of other weights is not taken.

    Raises:
      UserError: it cannot be written.
    """
    content = compressed.packed(arrays, exported.facts(network))
    path = where / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}{compressed.SUFFIX}"
    try:
        whole_files.write(path, content)
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error
    return path


def _to_prune(config: Config, start: pathlib.Path, options: Training) -> Config:
    optim = dataclasses.replace(config.optim, learning_rate=options.prune_rate * config.optim.learning_rate)
    prune = Prune(sparsity=options.sparsity, scope="global", end=END)
    return _short(config, start, options.prune_epochs, optim=optim, prune=prune)


def _to_tune(config: Config, start: pathlib.Path, options: Training, values: int) -> Config:
    optim = Optim(name="adam", learning_rate=options.tune_rate, momentum=0.9, weight_decay=0.0, shared_values=values)
    return _short(config, start, options.tune_epochs, optim=optim, prune=Prune())


def _short(config: Config, start: pathlib.Path, epochs: float, **groups: Any) -> Config:
    """The config of a further training from a file of weights.

    Raises:
      ConfigError: fields do not go together.
    """
    run = dataclasses.replace(config.run, epochs=epochs, steps=0, patience=0)
    schedule = Schedule(warmup=WARM_UP * epochs)
    init = Init(source=f"file:{start.absolute()}")
    return from_config_dict(to_dict(dataclasses.replace(config, run=run, schedule=schedule, init=init, **groups)))


def _loaded(folder: pathlib.Path) -> Trained:
    return trained.load(folder, trained.TESTED, "", 1)[0]
