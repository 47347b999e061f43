"""`jaxcnn.train`: trains a run from a script or a notebook."""

import dataclasses
import io
import logging
import os
import pathlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from jaxcnn.api import arguments, objects
from jaxcnn.api.configs import Recipe, checked
from jaxcnn.api.errors import one_line, python_words
from jaxcnn.api.progress import notebook_progress
from jaxcnn.api.run import Run
from jaxcnn.config import Config, Data, UserError, from_config_dict, to_dict
from jaxcnn.data import memory
from jaxcnn.machine import plugins
from jaxcnn.train import loop
from jaxcnn.train.hooks import Evaluation, Hooks, Step
from jaxcnn.train.interrupts import Interrupts, Stopped

Event = TypeVar("Event", Step, Evaluation)
Callbacks = Callable[[Event], Any] | Iterable[Callable[[Event], Any]]

_log = logging.getLogger("jaxcnn")

HELD_OUT_SHARE = 5  # of arrays without a validation part, at most one example in five is held out


def train(
    config: Recipe,
    workdir: str | os.PathLike[str],
    *,
    data: Any = None,
    model: Any = None,
    after_step: Callbacks[Step] = (),
    after_evaluation: Callbacks[Evaluation] = (),
    stop: Callable[[], bool] | threading.Event | None = None,
    progress: bool = True,
) -> Run:
    """Train as a config says, in a workdir; continue if it holds checkpoints of the run; return the run.

        run = jaxcnn.train(jaxcnn.config("quickstart"), "runs/digits")

    An interrupted call (the stop button of a notebook, Ctrl-C) saves a checkpoint of the current step and raises
    KeyboardInterrupt; the same call continues from there, and the run ends with the same bits as if nothing had
    happened. A finished run is returned as it is. No signal handlers are set, and any thread may call this.

    Args:
      config: what `jaxcnn.config` returns, or the name of a recipe.
      workdir: the folder of the run; created if missing.
      data: the data in place of `config.data.source`: the name of a source, such as "folder:photos"; a pair
        (images, labels); or a mapping such as {"train": (images, labels), "val": …, "test": …, "class_names": names}.
        Images are arrays [N, H, W, C] or [N, H, W] of uint8, uint16 or floats, whose type becomes `config.data.dtype`;
        labels are class numbers or names [N], or columns of numbers [N, K] for other tasks. Without "val", some
        of "train" are held out; without "test", nothing is tested. To continue the run, give equal arrays again.
        It may also be a function that returns such data.
      model: the network in place of `config.model.name`: a name, or a class or module of Flax. One that is in no module
        of a file must be given again to continue the run, or to load it in another process.
      after_step: a function, or several, called with a `jaxcnn.Step` after each training step. Its figures are read
        when `step.metrics` is first used.
      after_evaluation: a function, or several, called with a `jaxcnn.Evaluation` after each evaluation on the
        validation split. An exception from these functions ends the run, which the same call continues later.
      stop: a function or an event, checked between steps; once it is true (or set), the run saves a checkpoint and
        raises `jaxcnn.Interrupted`. This stops a run in another thread.
      progress: whether to show what the run does: as a bar and a table in a notebook, as lines elsewhere. The log names
        in any case what another session has to give again.

    Raises:
      UserError: config, data, workdir or machine do not allow the run; one line (ConfigError: one for each mistake).
      Diverged: a loss or gradient was not finite; a UserError.
      KeyboardInterrupt: the call was interrupted.
      Interrupted: `stop` asked for it.
    """
    with python_words():
        wanted, arrays = with_data(checked(config), data, model)
        plugins.check(wanted)
        folder = arguments.path(workdir, "workdir")
        objects.remember(folder, wanted)
        for line in () if progress else plugins.told(wanted):
            _log.warning("%s", line)
        display = notebook_progress() if progress else None
        hooks = Hooks(
            output=None if progress else _Nowhere(),
            progress_lines=progress and display is None,
            after_step=_all(after_step, "after_step", display.after_step if display else None),
            after_evaluation=_all(after_evaluation, "after_evaluation", display.after_evaluation if display else None),
            where=_where(folder, arrays),
        )
        try:
            loop.train(wanted, folder, command=["jaxcnn.train"], hooks=hooks, interrupts=_interrupts(stop))
        except KeyboardInterrupt as error:
            # Python gives others a text, too, such as one that was raised while a file was decoded.
            told = str(error).removeprefix("KeyboardInterrupt: ") if isinstance(error, Stopped) else ""
            told = told or f"stopped, nothing was lost; {hooks.where}"
            raise one_line(KeyboardInterrupt(told)) from None
        finally:
            if display is not None:
                display.close()
        return Run(folder, arrays=arrays)


def _where(folder: pathlib.Path, arrays: memory.Arrays | None) -> str:
    """A text on how to continue the run, for messages."""
    return f"the same call with {folder}{' and equal arrays' if arrays is not None else ''} continues"


def with_data(config: Config, data: Any, model: Any) -> tuple[Config, memory.Arrays | None]:
    """The config with other data and another network, and the arrays if the data are arrays."""
    arrays = None
    if isinstance(data, str):
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=data))
    elif callable(data) and not hasattr(data, "__array__"):
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=plugins.name_of(data)))
    elif data is not None:
        arrays = memory.give(data)
        config = dataclasses.replace(config, data=divided(config.data, arrays))
    tree = to_dict(config)
    if model is not None:
        tree["model"]["name"] = plugins.name_of(model)
    return from_config_dict(tree), arrays


def divided(data: Data, arrays: memory.Arrays) -> Data:
    """`data` for arrays: without a test if they have none, and with at most a fifth held out for validation."""
    train = arrays.parts["train"]
    changes: dict[str, Any] = {"source": arrays.source, "dtype": train.images.dtype.name}
    if "test" not in arrays.parts and data.test_split == Data.test_split:
        changes["test_split"] = ""
    held = len(train.labels) // HELD_OUT_SHARE
    if "val" not in arrays.parts and data.val_examples > held:
        changes |= {"val_examples": held, "stratify": True}
    return dataclasses.replace(data, **changes)


def _all(given: Callbacks[Event], name: str, first: Callable[[Event], Any] | None) -> Callable[[Event], None] | None:
    """A function that calls `first` and all given ones; None if there are none, so that events cost nothing."""
    several = (given,) if callable(given) else arguments.several(name, given, "a function of one event, or several")
    functions: list[Any] = list(several)
    if wrong := [each for each in functions if not callable(each)]:
        raise UserError(f"{name} must be a function of one event, or several; {type(wrong[0]).__name__} is not one")
    if first is not None:
        functions.insert(0, first)
    if not functions:
        return None

    def call(event: Event) -> None:
        for function in functions:
            function(event)

    return call


def _interrupts(stop: Callable[[], bool] | threading.Event | None) -> Interrupts:
    if stop is None:
        return Interrupts()
    asked = stop.is_set if isinstance(stop, threading.Event) else stop
    if not callable(asked):
        raise UserError(f"stop must be a function that returns a bool, or a threading.Event, not {type(stop).__name__}")
    return Interrupts(asked)


class _Nowhere(io.StringIO):
    """A stream that drops everything written to it."""

    def write(self, text: str, /) -> int:
        """Drop the text, and report it as written."""
        return len(text)
