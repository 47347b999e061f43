"""Child processes, needed because the number and kind of JAX's devices are fixed when it starts."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import malloc

ROOT = pathlib.Path(__file__).parents[2]
TASK, RESULT, OUTPUT = "task.json", "result.json", "output.txt"


def run_all(module: str, tasks: Sequence[dict[str, Any]], environments: Sequence[dict[str, str]]) -> list[Any]:
    """Run one process of `module` per task, all at once; return the result of each (see `serve`).

    If a process fails, the others are ended, since they may wait for it in a collective.

    Raises:
      UserError: a process reported a user error.
      RuntimeError: a process failed otherwise; its output is shown.
    """
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(_started(module, task, environment))
            for task, environment in zip(tasks, environments, strict=True)
        ]
        done = threading.Event()

        def watch(child: "_Child") -> None:
            if child.process.wait() != 0 or all(other.process.poll() is not None for other in children):
                done.set()

        for child in children:
            threading.Thread(target=watch, args=(child,), daemon=True).start()
        done.wait()
        failed = next((child for child in children if child.process.poll() not in (0, None)), None)
        if failed is not None:
            failed.complain()
        return [json.loads((child.folder / RESULT).read_text(encoding="utf-8")) for child in children]


def serve(work: Callable[[dict[str, Any]], Any]) -> None:
    """The child's side of `run_all`: run `work` on the task in the folder on the command line, and save its result."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    malloc.of_command()
    folder = pathlib.Path(sys.argv[1])
    try:
        answer = work(json.loads((folder / TASK).read_text(encoding="utf-8")))
    except UserError as error:
        (folder / RESULT).write_text(json.dumps({"mistake": str(error)}), encoding="utf-8")
        os._exit(UserError.exit_code)  # skips the barrier at which jax.distributed waits for all processes
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    (folder / RESULT).write_text(json.dumps(answer), encoding="utf-8")


class _Child:
    def __init__(self, process: subprocess.Popen[bytes], folder: pathlib.Path) -> None:
        self.process, self.folder = process, folder

    def complain(self) -> None:
        if self.process.returncode == UserError.exit_code and (self.folder / RESULT).exists():
            raise UserError(json.loads((self.folder / RESULT).read_text(encoding="utf-8"))["mistake"])
        output = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"a process ended with {self.process.returncode}; its output:\n{output}")


@contextlib.contextmanager
def _started(module: str, task: dict[str, Any], environment: dict[str, str]) -> Iterator[_Child]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="jaxcnn-scaling-") as name:
        folder = pathlib.Path(name)
        (folder / TASK).write_text(json.dumps(task), encoding="utf-8")
        with (folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, name],
                env=os.environ | {"PYTHONPATH": path} | environment,
                stdin=subprocess.PIPE,  # the child ends when this pipe closes, also if this process is killed
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield _Child(process, folder)
        finally:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: this thread would hold its lock at interpreter exit
        pass
    os._exit(1)
