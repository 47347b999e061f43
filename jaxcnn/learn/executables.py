"""Compiled programs kept on disk between starts of a command, so that an unchanged program is not even traced.

JAX's own cache of compiled programs has the lowered program as its key, so tracing and lowering come first, and these
take longer than loading. Here the key is what tracing depends on: the sources of jaxcnn, the versions of the packages
it uses, JAX's settings, the processor and the arguments. Code replaced in a running process (by a notebook or a test)
is not part of this key, so only commands enable this cache, by `keep`. It is for CPUs of one process only.

Under this key lies the name of the program, which is a digest of the lowered program. So if a change of the sources
does not affect a program, the old program is used after it was traced and lowered once.

JAX's cache stays behind this one. A program that JAX had, on disk or in this process, is not written here. An
executable that was deserialised cannot be serialised again: XLA:CPU (jaxlib 0.10) drops its functions, and calling it
fails with "Function … not found".

A kept program is a pickle and machine code, so only files that no other user can have written are loaded.
"""

import collections
import contextlib
import functools
import gc
import json
import logging
import os
import pathlib
import pickle
import platform
import stat
import sys
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import flax
import jax
import jaxlib
import numpy as np
import optax
import scipy
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from jaxcnn.data import cache
from jaxcnn.learn import compilation
from jaxcnn.machine import cores, json_text, mappings, xla_flags

PACKAGE = pathlib.Path(__file__).parent.parent
CHECKSUM = 4  # bytes of the CRC-32 after a program; without it, flipped bits of machine code would run
MOST = 2**30  # bytes of all files kept; the least recently used are deleted first
FULL = 0.5  # share of the memory regions a process may map, above which earlier programs are forgotten
_PROCESSOR = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # lines of /proc/cpuinfo
_PLACES = {"jax_compilation_cache_dir"}  # settings that are paths, and do not affect what is compiled

_log = logging.getLogger("jaxcnn")
_kept = False
_programs = weakref.WeakSet["Program"]()
_here = threading.local()  # .compiled: number of programs that XLA compiled in this thread


def keep(wanted: bool = True) -> None:
    """Keep programs beside JAX's cache from now on and load them from there; or, if not `wanted`, stop doing so."""
    global _kept
    _kept = wanted
    _listen()


def kept() -> bool:
    """Whether programs are kept now."""
    return _kept


def folder() -> pathlib.Path | None:
    """The folder of kept programs, which may not exist yet; None if none are kept, or others may write to it."""
    beside = jax.config.values["jax_compilation_cache_dir"] or ""
    if not _kept or not jax.config.values["jax_enable_compilation_cache"] or not beside or "://" in beside:
        return None
    place = pathlib.Path(beside) / "executables"
    with contextlib.suppress(OSError):
        if whose := _not_ours(place.stat()):
            _tell(f"compiled programs are neither loaded from {place} nor saved there: {whose}")
            return None
    return place


@functools.cache
def _listen() -> None:
    def asked(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            _here.compiled = _compiled() + 1

    def found(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            _here.compiled = _compiled() - 1

    jax.monitoring.register_event_duration_secs_listener(asked)
    jax.monitoring.register_event_listener(found)


def _compiled() -> int:
    """The number of programs that XLA compiled in this thread, without those that JAX took from a cache."""
    return getattr(_here, "compiled", 0)


class Program:
    """The compiled program of `trace(spec, mesh, …)` for each set of arguments, cached in the process.

    After `keep`, compiled programs are also kept between processes, and then not even traced again.

    `options` are for XLA, besides those of the traced function.

    Attributes:
      traced, lowered: return the program for the same arguments, before its lowering and before XLA's optimisation.
    """

    def __init__(self, trace: Callable[..., jax.stages.Traced], options: dict[str, Any] | None = None) -> None:
        functools.update_wrapper(self, trace)
        self._trace = trace
        self._options = options
        self.traced: Callable[..., jax.stages.Traced] = functools.lru_cache(maxsize=16)(trace)
        self.lowered: Callable[..., jax.stages.Lowered] = functools.lru_cache(maxsize=16)(self._lower)
        self._compiled = functools.lru_cache(maxsize=16)(self._load_or_compile)
        self._compiling: dict[tuple[Any, ...], threading.Lock] = collections.defaultdict(threading.Lock)
        _programs.add(self)

    def __call__(self, *arguments: Any) -> jax.stages.Compiled:
        """The compiled program for `arguments`; if another thread is compiling it, waits for that one."""
        with self._compiling[arguments]:
            return self._compiled(*arguments)

    def is_kept(self, *arguments: Any) -> bool:
        """Whether an earlier process has left the program for `arguments`."""
        name = self._name(arguments)
        return name is not None and _named(name) is not None

    def forget(self) -> None:
        """Release all that was traced, lowered and compiled; programs still in use stay with their users."""
        for cached in (self.traced, self.lowered, self._compiled):
            cast(Any, cached).cache_clear()

    def _lower(self, *arguments: Any) -> jax.stages.Lowered:
        return self.traced(*arguments).lower()

    def _load_or_compile(self, *arguments: Any) -> jax.stages.Compiled:
        if mappings.used() > FULL:
            forget()
        name, mesh = self._name(arguments), _mesh(arguments)
        if name is None:
            return self.lowered(*arguments).compile(self._options)
        if (file := _named(name)) and (executable := _load(file, mesh)):
            cache.touch(name)
            return executable
        lowered = self.lowered(*arguments)
        file = name.parent / _digest(lowered, mesh, self._options)
        if (executable := _load(file, mesh)) is None:
            before = _compiled()
            executable = lowered.compile(self._options)
            if _compiled() == before:
                return executable
            _save(file, executable)
        with _any_failure_told():
            _write(name, json.dumps(file.name).encode())
        return executable

    def _name(self, arguments: tuple[Any, ...]) -> pathlib.Path | None:
        """The file with the name of the program for `arguments`; None if it is not kept."""
        on_cpu = _mesh(arguments).devices.flat[0].platform == "cpu"
        place = _file_of(self._trace, arguments, self._options) if on_cpu else None
        return place and place.with_suffix(".json")


compiled = Program  # the decorator of a tracing function


def forget() -> None:
    """Release all programs of this process that nobody uses, here and in JAX's caches."""
    for program in list(_programs):
        program.forget()
    jax.clear_caches()
    gc.collect()


def kept_figures(compute: Callable[..., Any], *arguments: Any) -> Any:
    """`compute(spec, mesh, …)`, a JSON value, kept between processes like programs.

    It is kept on GPUs too, as it contains no machine code.
    """
    place = _file_of(compute, arguments)
    if place is None:
        return compute(*arguments)
    file = place.with_suffix(".json")
    with contextlib.suppress(OSError, ValueError):
        figures = json_text.parse(file.read_bytes())
        cache.touch(file)
        return figures
    figures = compute(*arguments)
    with _any_failure_told():
        _write(file, json.dumps(figures).encode())
    return figures


def _file_of(function: Callable[..., Any], arguments: tuple[Any, ...], options: Any = None) -> pathlib.Path | None:
    """The file for the result of `function` for `arguments`, which include a mesh; None if it is not kept."""
    kept = folder()
    if kept is None or jax.process_count() > 1:
        return None
    mesh = _mesh(arguments)
    rest = [argument for argument in arguments if argument is not mesh]
    return kept / cache.fingerprint([_sources(), function.__qualname__, rest, options, *_surroundings(mesh)])


def _named(name: pathlib.Path) -> pathlib.Path | None:
    """The program whose name is in a file; None if either is missing or cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        file = name.parent / json_text.parse(name.read_bytes())
        return file if file.is_file() else None
    return None


def _digest(lowered: jax.stages.Lowered, mesh: Mesh, options: dict[str, Any] | None) -> str:
    """A name for a lowered program: programs with equal names compile to the same code with the same arguments."""
    operations = cast(Any, lowered.compiler_ir()).body.operations
    (main,) = (each for each in operations if str(each.name) == '"main"')
    # The text does not say which arguments the program takes and which it drops, nor the options for the compiler.
    taken = [str(argument.location) for argument in main.arguments]
    told = options, pathlib.Path(compilation.__file__).read_bytes()
    trees = lowered.in_tree, lowered.out_tree, lowered.args_info
    return cache.fingerprint([lowered.as_text(), taken, trees, told, *_surroundings(mesh)])


def _mesh(arguments: tuple[Any, ...]) -> Mesh:
    return next(argument for argument in arguments if isinstance(argument, Mesh))


def _surroundings(mesh: Mesh) -> tuple[Any, ...]:
    """Everything that a program depends on besides its sources and arguments."""
    versions = [sys.version, *(module.__version__ for module in (jax, jaxlib, flax, optax, np, scipy))]
    settings = {name: value for name, value in sorted(jax.config.values.items()) if name not in _PLACES}
    first = mesh.devices.flat[0]
    devices = [device.id for device in mesh.devices.flat], mesh.devices.shape, mesh.axis_names, jax.device_count()
    return versions, settings, _flags_of_xla(), _processor(), devices, first.device_kind, first.client.platform_version


def _flags_of_xla() -> tuple[str, str]:
    """XLA_FLAGS, and the content of the file that it may name instead of flags."""
    flags, text = os.environ.get("XLA_FLAGS", "").strip(), ""
    if xla_flags.names_file(flags):
        with contextlib.suppress(OSError):
            text = pathlib.Path(flags).read_text()
    return flags, text


@functools.cache
def _sources() -> str:
    """Digest of all modules of jaxcnn, as they are on disk."""
    files = sorted(PACKAGE.rglob("*.py"))
    return cache.fingerprint((str(path.relative_to(PACKAGE)), path.read_bytes()) for path in files)


@functools.cache
def _processor() -> tuple[Any, ...]:
    """The processor that machine code is compiled for, and how many threads share an operation."""
    lines: set[str] = set()
    with contextlib.suppress(OSError):
        lines = {line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(_PROCESSOR)}
    return platform.platform(), platform.processor(), sorted(lines), len(cores.usable())


def _load(file: pathlib.Path, mesh: Mesh) -> jax.stages.Compiled | None:
    """The program in a file, for the devices of the mesh; None if it is missing, unreadable or not trusted."""
    try:
        with file.open("rb") as opened:  # check the open file, which nobody can replace any more
            if whose := _not_ours(os.fstat(opened.fileno())):
                _tell(f"the compiled program {file} is not used: {whose}; it is compiled and written again")
                return None
            whole = opened.read()
        content, checksum = whole[:-CHECKSUM], whole[-CHECKSUM:]
        if zlib.crc32(content) != int.from_bytes(checksum, "little"):
            return None
        payload, in_tree, out_tree = pickle.loads(content)
        devices = list(mesh.devices.flat)
        executable = serialize_executable.deserialize_and_load(payload, in_tree, out_tree, execution_devices=devices)
    except Exception:  # a damaged pickle may raise anything; the program is then compiled and written anew
        return None
    cache.touch(file)
    return executable


def _not_ours(status: os.stat_result) -> str:
    """The reason why another user may have written a file or folder; empty if no other user can."""
    if status.st_uid != os.geteuid():
        return "it belongs to another user ($JAXCNN_CACHE names another cache folder)"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "users other than its owner may write to it (chmod go-w corrects this)"
    return ""


def _save(file: pathlib.Path, executable: jax.stages.Compiled) -> None:
    """Write a program completely or not at all; if it cannot be serialised or written, the next start compiles."""
    with _any_failure_told():
        content = pickle.dumps(serialize_executable.serialize(executable))
        checksum = zlib.crc32(content).to_bytes(CHECKSUM, "little")
        _write(file, content + checksum)


@contextlib.contextmanager
def _any_failure_told() -> Iterator[None]:
    """Report the first failure to write, also if JAX refuses to serialise a program: a cache must not end a run."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        _tell(f"a compiled program could not be saved for the next start ({type(error).__name__}: {lines[0][:200]})")


@functools.cache
def _tell(line: str) -> None:
    """Log a line at most once in this process."""
    _log.warning("%s", line)


def _write(file: pathlib.Path, content: bytes) -> None:
    """Write a file that only its owner can read and write, in such a folder; delete the least recently used files."""
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    cache.write_whole(file, lambda aside: aside.write(content))  # its file is made by mkstemp: 0600
    size = 0
    for _, bytes_, old in sorted(_files(file.parent), reverse=True):
        size += bytes_
        if size > MOST:
            old.unlink(missing_ok=True)


def _files(place: pathlib.Path) -> Iterator[tuple[float, int, pathlib.Path]]:
    """Time of last use, size and path of each file; others may remove some meanwhile."""
    for file in place.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield (status := file.stat()).st_mtime, status.st_size, file
