"""Programs kept whole between starts are those that would have been compiled."""

import concurrent.futures
import functools
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import zlib

import jax
import jax.numpy as jnp
import pytest
import scipy
from jax.experimental.compilation_cache import compilation_cache

from jaxcnn.learn import executables, programs, sharded
from jaxcnn.machine import mappings
from jaxcnn.machine import mesh as meshes
from tests import runs, small

FLAGS = [*runs.DIGITS, "--config.model.width=0.25", "--config.run.steps=3"]


@pytest.fixture
def cache(tmp_path):
    """A folder for compiled programs of its own, in which they are kept, and into which JAX writes none of its own."""
    chosen = {
        "jax_compilation_cache_dir": str(tmp_path / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 1e9,
    }
    before = {name: jax.config.values[name] for name in chosen}
    for name, value in chosen.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # else JAX goes on with the folder it opened first
    executables.keep()
    yield tmp_path / "compiled" / "executables"
    executables.keep(False)
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def adder(asked: list[int]) -> executables.Program:
    """A program that adds; `asked` grows by what each compilation is for."""

    def add(mesh, number: int) -> jax.stages.Traced:
        asked.append(number)
        x = jax.ShapeDtypeStruct((), "float32", sharding=meshes.replicated(mesh))
        return jax.jit(lambda x: x + number).trace(x)

    return executables.compiled(add)


def kept_program(cache):
    """The file of the only program that is kept, beside the one with its name."""
    (file,) = (file for file in cache.iterdir() if file.suffix != ".json")
    return file


def test_a_program_is_compiled_once_for_all_processes(cache):
    asked, mesh = [], meshes.make_mesh(1)
    assert not adder(asked).is_kept(mesh, 1)
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert adder(asked).is_kept(mesh, 1)
    assert not adder(asked).is_kept(mesh, 2)
    assert adder(asked)(mesh, 1)(1.0) == 2.0  # as another process would: this one has compiled nothing
    assert asked == [1]
    assert adder(asked)(mesh, 2)(1.0) == 3.0
    assert asked == [1, 2]


def test_threads_that_need_a_program_at_once_wait_for_one_compilation():
    asked, mesh = [], meshes.make_mesh(1)
    program, both = adder(asked), threading.Barrier(2)

    def use() -> None:
        both.wait()
        assert program(mesh, 1)(1.0) == 2.0

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for used in [pool.submit(use), pool.submit(use)]:
            used.result()
    assert asked == [1]


@pytest.mark.parametrize("change", ["sources", "settings", "flags", "processor", "mesh", "scipy", "options"])
def test_what_a_program_hangs_on_asks_for_another(change, cache, monkeypatch):
    asked, mesh, options = [], meshes.make_mesh(1), None
    adder(asked)(mesh, 1)
    before = jax.config.values["jax_default_matmul_precision"]
    try:
        match change:
            case "sources":
                monkeypatch.setattr(executables, "_sources", lambda: "others")
            case "settings":
                jax.config.update("jax_default_matmul_precision", "highest")
            case "flags":
                monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=false")
            case "processor":
                monkeypatch.setattr(executables, "_processor", lambda: ("another",))
            case "scipy":  # which computes constants of a program
                monkeypatch.setattr(scipy, "__version__", "another")
            case "mesh":
                mesh = meshes.make_mesh(2)
            case "options":
                options = {"xla_backend_optimization_level": 0}
        assert not executables.Program(adder(asked).__wrapped__, options).is_kept(mesh, 1)
    finally:
        jax.config.update("jax_default_matmul_precision", before)


def test_other_sources_that_make_the_same_program_take_the_old_one(cache, monkeypatch):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)
    file = kept_program(cache)
    before = file.stat().st_ino
    monkeypatch.setattr(executables, "_sources", lambda: "others")
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert asked == [1, 1], "it was traced once for the new sources"
    assert kept_program(cache) == file and file.stat().st_ino == before, "and compiled for none"


def test_programs_that_differ_only_in_the_argument_that_they_take_are_two(cache):
    # They are the same operations for XLA, as JAX drops an argument that is not used.
    def either(mesh, first: bool) -> jax.stages.Traced:
        x = jax.ShapeDtypeStruct((), "float32", sharding=meshes.replicated(mesh))
        return jax.jit(lambda x, y: (x if first else y) + 1).trace(x, x)

    program, mesh = executables.compiled(either), meshes.make_mesh(1)
    assert [program(mesh, first)(1.0, 2.0) for first in (True, False)] == [2.0, 3.0]


def test_a_program_that_jax_had_in_this_process_is_not_kept_as_it_may_be_made_from_bytes(cache):
    mesh, add = meshes.make_mesh(1), jax.jit(lambda x: x + 1)
    x = jax.ShapeDtypeStruct((), "float32", sharding=meshes.replicated(mesh))
    add.lower(x).compile()
    assert executables.compiled(lambda mesh: add.trace(x))(mesh)(1.0) == 2.0
    assert not cache.exists()


def test_what_a_file_of_flags_says_counts_too(cache, monkeypatch, tmp_path):
    asked, mesh, flags = [], meshes.make_mesh(1), tmp_path / "flags.txt"
    flags.write_text("--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("XLA_FLAGS", str(flags))
    adder(asked)(mesh, 1)
    assert adder(asked).is_kept(mesh, 1)
    flags.write_text("--xla_cpu_enable_fast_math=true")
    assert not adder(asked).is_kept(mesh, 1)


def test_sources_are_those_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(executables, "PACKAGE", tmp_path)
    digests = set()
    for name, text in [("a.py", "1"), ("a.py", "2"), ("b/c.py", "2"), ("b/note.txt", "not a module")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        digests.add(executables._sources.__wrapped__())
    assert len(digests) == 3


def flip_a_bit(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def seal(content: bytes) -> bytes:
    """Bytes that are no program, and yet have the right checksum."""
    return content + zlib.crc32(content).to_bytes(executables.CHECKSUM, "little")


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        flip_a_bit,
        lambda _: seal(b"not a pickle"),
        lambda _: seal(b"\x80\x04N."),
    ],
    ids=["empty", "cut", "flipped", "no pickle", "another pickle"],
)
def test_a_damaged_file_is_compiled_and_written_anew(damage, cache):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)
    file = kept_program(cache)
    file.write_bytes(damage(file.read_bytes()))
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert asked == [1, 1]


def test_nothing_is_kept_where_nothing_is_cached(cache):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert executables.folder() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_figures_of_a_program_are_kept_beside_it_and_computed_anew_where_they_are_damaged(cache):
    asked, mesh = [], meshes.make_mesh(1)

    def figures_of(mesh, number: int) -> list[float | None]:
        asked.append(number)
        return [number + 0.1, None]

    assert executables.kept_figures(figures_of, mesh, 1) == [1.1, None]
    assert executables.kept_figures(figures_of, mesh, 1) == [1.1, None]
    assert executables.kept_figures(figures_of, mesh, 2) == [2.1, None]
    assert asked == [1, 2]
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert executables.kept_figures(figures_of, mesh, 1) == [1.1, None]
    executables.keep(False)
    assert executables.kept_figures(figures_of, mesh, 2) == [2.1, None]
    assert asked == [1, 2, 1, 2]


def test_only_the_last_used_are_kept(cache, monkeypatch):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)
    monkeypatch.setattr(executables, "MOST", 2.5 * sum(file.stat().st_size for file in cache.iterdir()))
    for number in (2, 3):
        adder(asked)(mesh, number)
    assert [adder(asked).is_kept(mesh, number) for number in (1, 2, 3)] == [False, True, True]


def test_a_folder_that_cannot_be_written_stops_nothing(cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert adder([])(meshes.make_mesh(1), 1)(1.0) == 2.0


def test_what_cannot_be_written_to_can_be_loaded(cache, monkeypatch):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)

    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(os, "utime", forbidden)
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert asked == [1]


@pytest.fixture
def told(caplog):
    """The lines that a run shows of it, each once in a process."""
    executables._tell.cache_clear()
    return lambda: [record.message for record in caplog.records if record.name == "jaxcnn"]


def test_a_program_that_jax_makes_no_bytes_of_runs_and_one_line_tells(tmp_path):
    code = """
import logging
import jax, jax.numpy as jnp
from jaxcnn.machine import mappings
from jaxcnn.machine import mesh as meshes
from jaxcnn.learn import executables
logging.basicConfig()
executables.keep()
constant = jnp.ones(1000)
def add(mesh, number):
    return jax.jit(lambda x: x + number + constant).trace(jax.ShapeDtypeStruct((1000,), "float32"))
mesh = meshes.make_mesh(1)
print(*(executables.compiled(add)(mesh, number)(jnp.zeros(1000))[0] for number in (1, 2)))
"""
    # Constants that become arguments, as JAX is to have them by default, are what it makes no bytes of.
    variables = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=runs.ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "2.0 3.0", done.stderr
    lines = [
        line
        for line in done.stderr.splitlines()
        if "could not be saved for the next start (NotImplementedError: " in line
    ]
    assert len(lines) == 1, done.stderr


def test_whatever_fails_in_keeping_figures_they_are_there(cache, told):
    def figures_of(mesh) -> object:
        return float  # which JSON does not have

    assert executables.kept_figures(figures_of, meshes.make_mesh(1)) is float
    assert len(told()) == 1


def test_what_is_kept_can_be_read_and_written_by_its_owner_alone(cache):
    umask = os.umask(0)
    try:
        adder([])(meshes.make_mesh(1), 1)
    finally:
        os.umask(umask)
    file = kept_program(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700 and stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o660, 0o602])
def test_a_program_that_others_may_have_written_is_not_run_but_written_anew(mode, cache, told):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)
    file = kept_program(cache)
    file.chmod(mode)
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    (line,) = told()
    assert f"{file} is not used: users other than its owner may write to it" in line
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert asked == [1, 1]


def test_a_folder_that_others_may_write_to_keeps_no_programs(cache, told):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)
    cache.chmod(0o770)
    assert not adder(asked).is_kept(mesh, 1)
    for number in (1, 2):
        adder(asked)(mesh, number)
    assert asked == [1, 1, 2] and kept_program(cache)
    (line,) = told()
    assert f"{cache} nor saved there: users other than its owner may write to it (chmod go-w" in line
    cache.chmod(0o700)
    assert adder(asked).is_kept(mesh, 1)


def test_programs_of_another_user_are_not_run(cache, told, monkeypatch):
    asked, mesh = [], meshes.make_mesh(1)
    adder(asked)(mesh, 1)
    monkeypatch.setattr(executables.os, "geteuid", lambda: os.getuid() + 1)
    assert adder(asked)(mesh, 1)(1.0) == 2.0
    assert asked == [1, 1]
    (line,) = told()
    assert "it belongs to another user" in line


def test_nothing_is_kept_unless_a_command_says_so(tmp_path):
    code = (
        "from jaxcnn.learn import executables; before = executables.folder(); "
        "executables.keep(); print(before, executables.folder())"
    )
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.split() == ["None", str(tmp_path / "executables")], done.stderr


@pytest.mark.parametrize("devices", [1, 4])
def test_the_form_of_the_state_comes_from_the_kept_program_without_tracing(devices, cache, monkeypatch):
    config = small.config(parallel={"shard_optimizer": True})
    program, mesh = small.spec_of(config, steps=7 + devices), meshes.make_mesh(devices)  # of no other test
    traced = sharded.abstract_state(program, mesh)
    programs.init_state(program, mesh)
    sharded.abstract_state.cache_clear()
    programs.init_state._compiled.cache_clear()  # as another process would begin
    monkeypatch.setattr(programs.init_state, "traced", None)
    assert sharded.abstract_state(program, mesh) == traced


def start(folder, cache) -> tuple[list[dict], set[str]]:
    """A run of the command: the metrics of its steps, and the names of the programs kept after it."""
    environment = runs.own_caches(cache, JAX_NUM_CPU_DEVICES="2", **runs.UNOPTIMISED)
    code, _, told = runs.python("-m", "jaxcnn.main", *FLAGS, f"--workdir={folder}", env=environment)
    assert code == 0, told
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = (cache / "compiled" / "executables").glob("*")
    return lines, {path.name for path in kept if path.suffix != ".json"}


def test_runs_from_kept_programs_are_the_same_to_the_bit(tmp_path):
    cold, programs = start(tmp_path / "cold", tmp_path / "cache")
    assert len(programs) >= 3
    warm, after = start(tmp_path / "warm", tmp_path / "cache")
    assert after == programs
    shutil.rmtree(tmp_path / "cache" / "compiled" / "executables")
    lowered, after = start(tmp_path / "lowered", tmp_path / "cache")
    assert not after, "JAX's cache had all of them, and XLA cannot make bytes of what was made from bytes"
    assert metrics(warm) == metrics(lowered) == metrics(cold)


def metrics(lines: list[dict]) -> list[list]:
    """What a line says of the mathematics."""
    keys = ("step", "loss", "top1_accuracy", "grad_norm", "learning_rate")
    found = [[line.get(key) for key in keys] for line in lines]
    assert any(None not in values for values in found), "no line has all of these"
    return found


@pytest.mark.skipif(not mappings.used(), reason="only Linux limits the regions that a process may map")
def test_programs_that_nobody_uses_make_room_for_others(monkeypatch):
    """Otherwise a process that compiles enough of them ends in a segmentation fault (jaxlib 0.10, LLVM)."""
    mesh = meshes.make_mesh(1)

    def sorts(mesh, number: int) -> jax.stages.Traced:
        x = jax.ShapeDtypeStruct((64,), "float32", sharding=meshes.replicated(mesh))
        return jax.jit(lambda x: functools.reduce(lambda x, _: jnp.sort(x) + number, range(4), x)).trace(x)

    def regions_of(programs: range) -> float:
        before = mappings.used()
        used = [program(mesh, number) for number in programs][:1]
        assert used[0](jnp.zeros(64))[0] == 4 * programs[0], "a program in use stays"
        return mappings.used() - before

    program = executables.compiled(sorts)
    executables.forget()
    all_kept = regions_of(range(8))
    executables.forget()
    monkeypatch.setattr(executables, "FULL", mappings.used() + all_kept / 4)
    assert regions_of(range(8, 24)) < all_kept / 2
