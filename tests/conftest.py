"""Every test runs on eight virtual CPU devices, sees no GPU, and keeps its caches out of the user's folder."""

import os
import pathlib
import signal

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


# Tests send these to themselves and to what they start, which would ignore them as `nohup` and background jobs do.
for _number, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGUSR1, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers
    os.environ["JAXCNN_CACHE"] = str(shared / "jaxcnn-cache")


@pytest.fixture
def root() -> pathlib.Path:
    """The root of the source tree."""
    return pathlib.Path(__file__).parent.parent
