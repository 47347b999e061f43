"""Servers that tests start themselves, as unprivileged users on free ports."""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator

BINARIES = [*sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), pathlib.Path("/usr/sbin")]


def found(name: str) -> str | None:
    """A server's program; None: it is not installed."""
    return shutil.which(name, path=os.pathsep.join([*map(str, BINARIES), os.environ.get("PATH", "")]))


def binary(name: str) -> str:
    """A server's program, which has to be there."""
    path = found(name)
    assert path, f"{name} is missing; `make test-services` installs Debian's PostgreSQL and MariaDB"
    return path


def user_of(own: str) -> str | None:
    """Whom a server runs as, who has a user of its own: both refuse root."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return own if own in names else "nobody"


def folder_of(user: str | None) -> pathlib.Path:
    """A new folder that a user may write."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="server-"))
    if user:
        shutil.chown(folder, user)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PostgreSQL:
    """A running server with an empty database."""

    def __init__(self) -> None:
        self._user = user_of("postgres")
        self._folder, self._port = folder_of(self._user), free_port()
        self._run(binary("initdb"), "-D", str(self._data), "-U", "jaxcnn", "--auth=trust", "--no-sync")
        self.start()

    @property
    def _data(self) -> pathlib.Path:
        return self._folder / "data"

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://jaxcnn@127.0.0.1:{self._port}/postgres"

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self._user, cwd=self._folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._run(
            binary("pg_ctl"), "-D", str(self._data), "-l", log, "-o", f"{options} -c fsync=off", "-w", "start"
        )  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; `immediate`, as in a crash: it recovers from its log at the next start."""
        self._run(binary("pg_ctl"), "-D", str(self._data), "-m", mode, "-w", "stop")

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """Let all its processes stand still, or go on with SIGCONT."""
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True).stdout.split()
        for process in (first, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A new server, removed afterwards."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.remove()
