"""What a start imports and compiles, and that its benchmark reports it; no timing decides anything here."""

import functools
import json
import subprocess
import sys

import pytest

from benchmarks import startup
from tests import runs

# Trains, and tells how often XLA was asked for a program, how often the cache had it, and how often it was asked in
# the loop.
COUNTING = """
import json, pathlib, sys
import jax
from jaxcnn.train import loop
from tests import small

counts = {"asked": 0, "found": 0, "while_running": 0}
running = False

def listen(event, **_):
    if event == "/jax/compilation_cache/compile_requests_use_cache":
        counts["asked"] += 1
        counts["while_running"] += running
    counts["found"] += event == "/jax/compilation_cache/cache_hits"

jax.monitoring.register_event_listener(listen)
drive = loop._drive

def counted(session):
    global running
    running = True
    return drive(session)

loop._drive = counted
data = {"source": "synthetic:8x8x3:4:96", "val_examples": 20, "loader": sys.argv[2]}
run = {"steps": 7, "eval_every_epochs": 1.0, "eval_batch_size": 24, "tensorboard": False}
optim = {"ema_decay": 0.5}
loop.train(small.config(data=data, run=run, optim=optim), pathlib.Path(sys.argv[1]), command=[])
print(json.dumps(counts))
"""


@pytest.fixture(autouse=True)
def _unoptimised(monkeypatch):
    for name, value in runs.UNOPTIMISED.items():
        monkeypatch.setenv(name, value)


def count(folder, loader: str, cache) -> tuple[dict[str, int], str]:
    """The counts of a run in a process of its own, and what it wrote to standard error."""
    environment = runs.own_caches(cache, JAX_NUM_CPU_DEVICES="2")
    code, output, told = runs.python("-c", COUNTING, str(folder), loader, env=environment)
    assert code == 0, told
    return json.loads(output.splitlines()[-1]), told


@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_programs_are_compiled_before_the_run_and_never_again(loader, tmp_path):
    cold, _ = count(tmp_path / "first", loader, tmp_path / "cache")
    assert cold["asked"] > 0
    assert cold["found"] == 0
    assert cold["while_running"] == 0, "something was compiled in the loop"
    warm, told = count(tmp_path / "second", loader, tmp_path / "cache")
    assert warm == {"asked": cold["asked"], "found": cold["asked"], "while_running": 0}
    assert told == "", "programs from the cache should load without a remark"


def test_the_benchmark_reports_every_measure_of_every_repeat(tmp_path, capsys, monkeypatch):
    once = functools.cache(functools.partial(startup.first_step, cache="prepare"))  # one start is enough for a test
    monkeypatch.setattr(startup, "first_step", lambda flags, folder, cache: once(tuple(flags), folder))
    flags = [*runs.DIGITS, "--config.model.width=0.25", "--config.global_batch_size=32"]
    figures = startup.main(["--repeats=2", f"--out={tmp_path}/found", "--", *flags])
    assert json.loads((tmp_path / "found.json").read_text()) == {"startup": figures}
    assert figures["seconds"].keys() == figures["median"].keys() == startup.MEASURES.keys()
    assert {len(values) for values in figures["seconds"].values()} == {2}
    assert all(value > 0 for values in figures["seconds"].values() for value in values)
    table = capsys.readouterr().out
    section = (tmp_path / "found.md").read_text()
    assert all(meaning in table and meaning in section for meaning in startup.MEASURES.values())


def test_a_run_that_fails_is_told_with_its_words(tmp_path):
    with pytest.raises(RuntimeError, match="this Python file does not exist"):
        startup.first_step(["--config=nothing.py"], tmp_path, "cache")


def test_the_package_itself_imports_nothing_but_python():
    code = "import sys; before = set(sys.modules); import jaxcnn; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    others = {name.partition(".")[0] for name in done.stdout.split()} - {"jaxcnn"}
    assert others <= sys.stdlib_module_names and "jaxcnn.api" not in done.stdout
