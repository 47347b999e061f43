"""Services that the tests start themselves: PostgreSQL and MariaDB, as unprivileged users on free ports."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests import servers


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database of a new server."""
    with servers.postgresql() as server:
        yield server.url


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The URL of an empty database of a new MariaDB server, which speaks MySQL's protocol."""
    pytest.importorskip("pymysql", reason="the extra [mysql] is not installed")
    user = servers.user_of("mysql")
    folder, port = servers.folder_of(user), servers.free_port()
    data = (f"--datadir={folder / 'data'}", f"--tmpdir={folder}")  # its user may not be let into /tmp
    install = [servers.binary("mariadb-install-db"), "--no-defaults", *data, "--auth-root-authentication-method=normal"]
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
            servers.binary("mariadbd"), "--no-defaults", *data, f"--init-file={first}", f"--socket={folder / 'socket'}",
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
