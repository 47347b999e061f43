"""Services that the tests start themselves: PostgreSQL and MariaDB, as unprivileged users on free ports."""

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

BINARIES = [*sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), pathlib.Path("/usr/sbin")]


def _binary(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([*map(str, BINARIES), os.environ.get("PATH", "")]))
    assert found, f"{name} is missing; `make test-services` installs Debian's PostgreSQL and MariaDB"
    return found


def _user(own: str) -> str | None:
    """Whom a server runs as, who has a user of its own: both refuse root."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return own if own in names else "nobody"


def _folder(user: str | None) -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="server-"))
    if user:
        shutil.chown(folder, user)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database of a new server."""
    user = _user("postgres")
    folder, port = _folder(user), free_port()

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    data = folder / "data"
    run(_binary("initdb"), "-D", str(data), "-U", "jaxcnn", "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run(_binary("pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        yield f"postgresql://jaxcnn@127.0.0.1:{port}/postgres"
    finally:
        run(_binary("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The URL of an empty database of a new MariaDB server, which speaks MySQL's protocol."""
    pytest.importorskip("pymysql", reason="the extra [mysql] is not installed")
    user = _user("mysql")
    folder, port = _folder(user), free_port()
    data = (f"--datadir={folder / 'data'}", f"--tmpdir={folder}")  # its user may not be let into /tmp
    install = [_binary("mariadb-install-db"), "--no-defaults", *data, "--auth-root-authentication-method=normal"]
    done = subprocess.run(install, user=user, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    first = folder / "first.sql"
    first.write_text(
        "CREATE DATABASE jaxcnn;\n"  # one on each line: so such files are read
        "CREATE USER jaxcnn@'127.0.0.1' IDENTIFIED BY 'secret';\n"
        "GRANT ALL ON jaxcnn.* TO jaxcnn@'127.0.0.1';\n"
    )
    first.chmod(0o644)
    server = subprocess.Popen(
        [
            _binary("mariadbd"), "--no-defaults", *data, f"--init-file={first}", f"--socket={folder / 'socket'}",
            f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder / 'pid'}", "--skip-name-resolve",
        ],
        user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb"),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"mysql://jaxcnn:secret@127.0.0.1:{port}/jaxcnn"
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
