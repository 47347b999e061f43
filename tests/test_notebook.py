"""A real Jupyter kernel: cells are interrupted and run again; the kernel lives, and the run has the same bits."""

import os
import subprocess
import sys
import time

import pytest
from jupyter_client.manager import KernelManager

from tests import digits, runs

START = """
import sys
sys.path.insert(0, {root!r})
import jaxcnn, time
from jaxcnn.train import checkpoint, packages
from tests import digits
config, workdir = digits.config(model={{"width": 0.25}}), {workdir!r}
def pause(event):
    print("at", event.step, flush=True)
    time.sleep(1)
def hold(owner, name, words):  # the next call says so, and takes a second longer
    function = getattr(owner, name)
    def held(*args, **kwargs):
        setattr(owner, name, function)
        print(words, flush=True)
        time.sleep(1)
        return function(*args, **kwargs)
    setattr(owner, name, held)
"""
TRAIN = "run = jaxcnn.train(config, workdir)"
SLOWLY = "run = jaxcnn.train(config, workdir, after_step=lambda event: time.sleep(0.1))"  # an interrupt needs a moment
SECONDS = 120


class Notebook:
    """Cells in a kernel, each run to its end."""

    def __init__(self, folder):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env=os.environ | {"PYTHONWARNINGS": "ignore"})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def run(self, code: str, interrupt_at: str = "") -> list[dict]:
        """Run a cell; send the kernel an interrupt when the cell's output has this text. The messages of the cell."""
        identity, messages, deadline = self.client.execute(code), [], time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            message = self.client.get_iopub_msg(timeout=SECONDS)
            if message["parent_header"].get("msg_id") != identity or message["msg_type"] == "execute_input":
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages
            messages.append(message)
            if interrupt_at and interrupt_at in text(messages):
                self.manager.interrupt_kernel()
                interrupt_at = ""
        raise AssertionError(text(messages))

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def text(messages) -> str:
    return "".join(message["content"].get("text", "") for message in messages)


def error(messages) -> list[str]:
    return [line for message in messages for line in message["content"].get("traceback", ())]


@pytest.fixture
def notebook(tmp_path):
    opened = Notebook(tmp_path)
    yield opened
    opened.close()


def test_an_interrupt_cannot_end_an_import_that_jax_does_not_survive():
    """All dialects that the first lowering imports are there before it."""
    code = """
import sys, jax
from jaxcnn.machine import dialects
named = lambda: {name for name in sys.modules if name.startswith("jaxlib.mlir.dialects.")}
dialects.load()
before = named()
jax.jit(lambda x: x + 1).lower(0.0)
assert before and named() == before, named() - before
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cells_are_interrupted_in_any_phase_and_run_again_to_the_same_bits(notebook, tmp_path):
    workdir, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    digits.run(undisturbed, model={"width": 0.25})
    assert not error(notebook.run(START.format(root=str(runs.ROOT), workdir=str(workdir))))
    goes_on = f"the same call with {workdir} continues"

    in_save = "hold(checkpoint.Checkpoints, 'save', 'saving')"
    for cell, place in (
        (f"hold(packages, 'check', 'starting')\n{TRAIN}", "starting"),
        (SLOWLY, "reading digits"),
        (SLOWLY, "loader resident"),  # compilation, or what follows on a fast machine
        ("jaxcnn.train(config, workdir, after_step=lambda event: event.step == 3 and pause(event))", "at 3"),
        (f"{in_save}\n{TRAIN}", "saving"),
        ("jaxcnn.train(config, workdir, after_evaluation=lambda event: event.step == 39 and pause(event))", "at 39"),
    ):
        messages = notebook.run(cell, place)
        line = "".join(error(messages))
        assert line.startswith("KeyboardInterrupt: stopped") and line.endswith(goes_on), text(messages)
        if place != "loader resident":
            assert ("with a checkpoint of step" in line) == (place in ("at 3", "saving", "at 39"))

    to_the_end = notebook.run(TRAIN)
    assert not error(to_the_end) and "finished: test accuracy" in text(to_the_end)
    kinds = [message["msg_type"] for message in to_the_end]
    assert "display_data" in kinds and "update_display_data" in kinds, "the bar"
    assert "\x1b" not in text(to_the_end), "no control characters of terminals"
    kept = runs.kept(workdir)
    kept["checkpoints"].pop("0", None)  # of an interrupt just before the first step
    assert kept == runs.kept(undisturbed)

    (shown,) = [message for message in notebook.run("run") if message["msg_type"] == "execute_result"]
    assert "data:image/png;base64," in shown["content"]["data"]["text/html"]
    assert error(notebook.run("jaxcnn.config('resnt50')"))[0].startswith("ConfigError: there is no recipe 'resnt50'")
    assert not error(notebook.run("assert run.evaluate()['examples'] == 360"))
