"""Start Python commands by forking a process that has already imported jax, what comes with it, and jaxcnn.

Importing these takes longer than most runs that tests start. Of jaxcnn all modules are imported but the commands, so
that these begin as ever; no backend is initialised. The forked process gets its own environment, folder and streams, is
a child of this process with a PID of its own, receives signals, and can be killed, as one that was started by its
command line. `Popen` has the interface of `subprocess.Popen`.

    Popen([sys.executable, "-m", "jaxcnn.main", …], cwd=…, env=…, stdout=…)

What it cannot have is what Python or the C library read before the first import: see `can_start`.
"""

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): orphans of descendants become children of this process
BEFORE_IMPORTS = ("PYTHON", "GLIBC", "LD_", "LC_", "LANG", "MALLOC", "JAXCNN_HUGE_PAGES")
ALWAYS = {"PYTHONUNBUFFERED": "1"}
JAX = "JAX_"
LIBRARIES = (
    "jax",
    "flax.linen",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "ml_collections.config_flags",
    "optax",
    "orbax.checkpoint",
    "scipy.optimize",
    "scipy.special",
)
ROOT = pathlib.Path(__file__).parent.parent


def can_start(env: dict[str, str]) -> bool:
    """Whether a forked process is like a started one in this environment."""
    here = os.environ | ALWAYS
    early = {name for name in env.keys() | here.keys() if name.startswith(BEFORE_IMPORTS)}
    return sys.platform == "linux" and all(env.get(name) == here.get(name) for name in early)


def modules() -> list[str]:
    """The modules of jaxcnn that are not started by `python -m`."""
    files = sorted((ROOT / "jaxcnn").rglob("*.py"))
    imported = [file for file in files if '__name__ == "__main__"' not in file.read_text()]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in imported]


class Popen(subprocess.Popen):
    """A command `[sys.executable, "-m", module, *arguments]`, or with "-c" and code, forked."""

    def _execute_child(self, args: Any, _executable: Any, _preexec: Any, _close: Any, _pass: Any, cwd: Any, env: Any,
                       _startup: Any, _flags: Any, _shell: Any, *rest: Any) -> None:  # fmt: skip
        pipes = rest[:6]  # as in subprocess: read and write ends for the child's stdin, stdout and stderr
        given = [pipes[0], pipes[3], pipes[5]]
        self.pid = _server().fork({"args": args[1:], "cwd": str(cwd or os.getcwd()), "env": env}, given)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class Server:
    """The process that is forked, and the socket to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if not name.startswith(JAX)} | ALWAYS
        command = [sys.executable, "-m", "tests.warm_start", str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        theirs.close()

    def fork(self, request: dict[str, Any], streams: list[int]) -> int:
        """The PID of a new child of this process; a stream of -1 is inherited."""
        own = [stream if stream >= 0 else number for number, stream in enumerate(streams)]
        body = json.dumps(request).encode()
        with self._lock:
            _adopt(True)
            try:
                rights = array.array("i", own)
                self._socket.sendmsg(
                    [len(body).to_bytes(8, "little")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                )
                self._socket.sendall(body)
                return int.from_bytes(_exactly(self._socket, 8), "little")
            finally:
                _adopt(False)


_started: list[Server] = []


def _server() -> Server:
    if not _started:
        _started.append(Server())
    return _started[0]


def _adopt(wanted: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise EOFError("the other process is gone")
        found += part
    return found


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for every request, until the socket closes; in the forked process, return the request."""
    while True:
        size, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * 4))
        if not size:
            return None
        streams = array.array("i", ancillary[0][2])
        request = json.loads(_exactly(connection, int.from_bytes(size, "little")))
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:  # its end makes the process that it forks a child of the one that asked
            child = os.fork()
            if child:
                os.write(writer, child.to_bytes(8, "little"))
                os._exit(0)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for descriptor in (reader, writer, connection.detach(), *(each for each in streams if each > 2)):
                os.close(descriptor)
            return request
        os.waitpid(between, 0)
        connection.sendall(os.read(reader, 8))
        for descriptor in (reader, writer, *streams):
            os.close(descriptor)


def _become(request: dict[str, Any], imported: dict[str, str]) -> None:
    """Run the module of a request as Python would; `imported` are the variables that imports set if they are unset."""
    import jax

    os.environ.clear()
    os.environ.update(imported | request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    for name, now in dict(jax.config.values).items():
        if (text := os.environ.get(name.upper())) is not None:
            jax.config.update(name, _parsed(text, now))
    own = [(stream.encoding, stream.errors) for stream in (sys.stdout, sys.stderr)]
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "wb", closefd=False), *how, write_through=True)
        for number, how in enumerate(own, start=1)
    )
    sys.orig_argv = [sys.executable, *request["args"]]
    option, what, *arguments = request["args"]
    with _quick_end():
        if option == "-c":
            sys.path[0], sys.argv = "", ["-c", *arguments]
            exec(what, {"__name__": "__main__"})
        else:
            assert option == "-m"
            sys.argv = [what, *arguments]
            runpy.run_module(what, run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def _quick_end() -> Iterator[None]:
    """End this process as Python ends it, but without taking each module apart, which takes longer than many a command.

    An error other than SystemExit is left to Python.
    """
    code: Any = 0
    try:
        yield
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    os._exit((code or 0) & 0xFF)


def _parsed(text: str, now: Any) -> Any:
    """The value of an environment variable of JAX, of the type of the setting's value now."""
    if isinstance(now, bool):
        return text.lower() in ("1", "true", "yes", "on", "y", "t")
    return type(now)(text) if isinstance(now, int | float) else text


def main() -> None:
    """Import what takes long; then fork for requests."""
    before = dict(os.environ)
    for name in [*LIBRARIES, *modules()]:
        importlib.import_module(name)
    del sys.modules["jaxcnn.at_start"], sys.modules["jaxcnn"].at_start  # a command imports it first: it sets handlers
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        _become(request, {name: value for name, value in os.environ.items() if name not in before})


if __name__ == "__main__":
    main()
