"""A command that is forked from a process with its imports is like one that Python started."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests import runs, warm_start

FACTS = """
import jax, json, os, signal, sys
print("a line", file=sys.stderr)
settings = {name: str(value) for name, value in jax.config.values.items()}
signals = [str(signal.getsignal(number)) for number in range(1, 32)]
streams = [(s.encoding, s.errors, s.line_buffering, s.write_through) for s in (sys.stdout, sys.stderr)]
commands = sorted({"jaxcnn.main", "jaxcnn.at_start", "tensorflow"} & sys.modules.keys())
print(json.dumps([settings, signals, streams, commands, jax.device_count(), os.getcwd(), dict(os.environ), sys.argv,
                  sys.orig_argv[1:], sys.path, os.getppid(), os.getpgrp(), sys.stdin.read(), __name__]))
raise SystemExit(7)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs prctl(2)")


def answer(kind: type[subprocess.Popen], folder) -> tuple[int, list, str]:
    """Exit code of FACTS, what it printed, and its standard error."""
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "3", "PYTHONUNBUFFERED": "1", "JAX_ENABLE_X64": "1", "MINE": "yes"}
    env.pop("JAX_COMPILATION_CACHE_DIR")
    process = kind(
        [sys.executable, "-c", FACTS, "--flag"], cwd=folder, env=env, stdin=-1, stdout=-1, stderr=-1, text=True
    )
    output, errors = process.communicate("typed", timeout=60)
    return process.returncode, json.loads(output), errors


def test_a_forked_command_has_the_settings_streams_and_place_of_a_started_one(tmp_path):
    code, facts, errors = answer(subprocess.Popen, tmp_path)
    assert code == 7 and facts[4] == 3 and facts[3] == [] and facts[-2] == "typed"
    forked, found, remarks = answer(warm_start.Popen, tmp_path)
    assert (forked, remarks) == (code, errors)
    for one, other in zip(found, facts, strict=True):
        assert one == other


def test_signals_reach_a_forked_command():
    code = "import time; print('there', flush=True); time.sleep(60)"
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = warm_start.Popen(
            [sys.executable, "-c", code], env=os.environ | warm_start.ALWAYS, stdout=-1, text=True
        )
        runs.wait_for(process, "there")
        assert runs.stop(process, number)[0] == -number


@pytest.mark.parametrize("name", ["PYTHONIOENCODING", "GLIBC_TUNABLES", "LC_ALL", "JAXCNN_HUGE_PAGES"])
def test_what_is_read_before_imports_needs_a_start(name):
    usual = os.environ | warm_start.ALWAYS
    assert warm_start.can_start(usual)
    assert not warm_start.can_start(usual | {name: "another"})
