"""A command that waits at a known place: for tests of what comes just then, without guessing how long anything takes.

    HELD="jaxcnn.preview jaxcnn.data.source:open_splits 1 /tmp/gate" python -m tests.held --config=…

This is `python -m jaxcnn.preview --config=…`, which says so when it calls that function for the first time. There
it waits until a process opens the named pipe for writing, if any ever does.
"""

import functools
import importlib
import itertools
import os
import pathlib
import runpy
import subprocess

from tests import runs

WAITS = "waits at the gate"


def start(
    folder: pathlib.Path, place: str, *flags: str, call: int = 1, module: str = "jaxcnn.main"
) -> tuple[subprocess.Popen, pathlib.Path]:
    """Start a command that waits at a call of the function `place`, and wait until it does; its gate is in `folder`."""
    gate = folder / "gate"
    os.mkfifo(gate)
    process = runs.start(*flags, module="tests.held", HELD=f"{module} {place} {call} {gate}")
    runs.wait_for(process, WAITS)
    return process, gate


def let_go(gate: pathlib.Path) -> None:
    """Let the command that waits at this gate go on."""
    os.close(os.open(gate, os.O_WRONLY))


def hold(place: str, number: int, gate: str) -> None:
    """Let the call of this number of the function `package.module:name` wait at the gate."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls = getattr(owner, name), itertools.count(1)

    def held(*args, **kwargs):
        if next(calls) == number:
            print(WAITS, flush=True)
            os.close(os.open(gate, os.O_RDONLY))
        return function(*args, **kwargs)

    setattr(owner, name, held)


if __name__ == "__main__":
    command, where, count, pipe = os.environ["HELD"].split()
    hold(where, int(count), pipe)
    runpy.run_module(command, run_name="__main__", alter_sys=True)
