"""Every test runs on eight virtual CPU devices, sees no GPU, and keeps its caches out of the user's folder.

Only compiled programs are kept from one `make test` to the next, as compiling takes most of the time: those of JAX's
cache, whose key is the whole program, and the networks' own (`jaxcnn.learn.executables`), whose key is all sources. So
no change of the code is missed, unless a test makes it (`small.programs_kept`). Tests about caches have their own
(`runs.own_caches`).
"""

import contextlib
import gc
import hashlib
import os
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Iterator
from importlib import metadata

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Else every worker, and every command that is started anew, would compile all modules from their sources.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

UNUSED_DAYS = 14
MANY = 0.25  # part of the regions of memory that a process may map


def compile_cache() -> pathlib.Path:
    """The folder for compiled programs of these versions and this kind of CPU."""
    cpu = pathlib.Path("/proc/cpuinfo")
    names = ("model name", "flags", "CPU part", "Features")
    lines = sorted({line for line in cpu.read_text().splitlines() if line.startswith(names)})
    versions = f"{metadata.version('jax')}-{metadata.version('jaxlib')}"
    kind = hashlib.sha256(repr(lines).encode()).hexdigest()[:12]
    home = os.environ.get("JAXCNN_TEST_CACHE") or pathlib.Path.home() / ".cache" / "jaxcnn-tests"
    # A program that JAX's cache had before programs were kept would never be kept: so a folder begun since then.
    return pathlib.Path(home) / f"{versions}-{kind}-kept"


os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compile_cache())
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # also small operations


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove programs that no test has used in two weeks."""
    if hasattr(session.config, "workerinput"):
        return
    for file in compile_cache().glob("*"):
        with contextlib.suppress(OSError):
            used = max(file.stat().st_atime, file.stat().st_mtime)
            if file.is_file() and time.time() - used > UNUSED_DAYS * 86400:
                file.unlink()


# Tests send these to themselves and to child processes, which ignore them under `nohup` or as background jobs.
for _number, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGUSR1, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--quick`, for `make check`."""
    parser.addoption("--quick", action="store_true", help="leave out the tests that tests/durations.json says are slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests that share a fixture on one worker, which then makes it once; leave out slow tests with `--quick`."""
    from tests.durations import longest_first, shared_fixtures, slow_of

    items[:] = longest_first(items)
    for item in items:
        if shared_fixtures(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    if config.getoption("--quick"):
        slow = {item.nodeid for item in slow_of(items)}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in slow])
        items[:] = [item for item in items if item.nodeid not in slow]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Search for garbage less often, and not in what is there by now: tracing makes many objects, and keeps them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


_began = pytest.StashKey[float]()


def processor_seconds() -> float:
    """What this process and those of its children that have ended took of the processors so far."""
    took = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in took)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note where the processor's clock stands; see `tests.durations`. Compile as the marks of the test say."""
    item.stash[_began] = processor_seconds()
    marked = item.get_closest_marker("unoptimised") is not None
    if marked or "tests.small" in sys.modules:
        from tests import small

        small.optimise(not marked)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Report what the test took of the processors, with its fixtures: other work on the machine does not change it."""
    yield
    item.user_properties.append(("processor", f"{processor_seconds() - item.stash[_began]:.2f}"))


def pytest_sessionfinish() -> None:
    """Compile as ever again, while what that needs is still there."""
    if "tests.small" in sys.modules:
        sys.modules["tests.small"].optimise(True)


@pytest.hookimpl(specname="pytest_runtest_teardown", trylast=True)
def pytest_forget_programs(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let go of programs after a module, if they are many: those of all modules are more than Linux allows a process.

    Not after every module: small operations, which no cache on disk holds, would be compiled anew for each.
    """
    executables = sys.modules.get("jaxcnn.learn.executables")
    if executables and nextitem and nextitem.path != item.path and executables.mappings.used() > MANY:
        executables.forget()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers
    os.environ["JAXCNN_CACHE"] = str(shared / "jaxcnn-cache")


@pytest.fixture
def kept_programs() -> Iterator[None]:
    """See `small.programs_kept`."""
    from tests import small

    with small.programs_kept():
        yield


@pytest.fixture
def root() -> pathlib.Path:
    """The root of the source tree."""
    return pathlib.Path(__file__).parent.parent
