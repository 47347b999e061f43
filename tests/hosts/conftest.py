"""A real Slurm for the tests of this folder; `make test-hosts` installs what it needs from Debian."""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests import runs
from tests.hosts.lab import Lab, one_at_a_time

NEEDED = ("sbatch", "slurmctld", "slurmd", "munged", "ip", "nsenter", "mpirun")


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hosts)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Four hosts with a Slurm."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.fail(f"{', '.join(missing)} not found; `make test-hosts` installs them", pytrace=False)
    if os.geteuid():
        pytest.fail("network namespaces need root", pytrace=False)
    folder = tmp_path_factory.mktemp("lab")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)  # munge wants to reach its socket
    with one_at_a_time(), Lab(folder, 4) as running:
        yield running


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pathlib.Path]:
    """`(devices, *flags, **environment) -> workdir` of an undisturbed run of one process, made once for all tests."""
    made: dict[tuple, pathlib.Path] = {}

    def run(devices: int, *flags: str, **environment: str) -> pathlib.Path:
        key = devices, flags, *environment.items()
        if key not in made:
            workdir = tmp_path_factory.mktemp("alone")
            code, output = runs.run(*flags, f"--workdir={workdir}", devices=devices, **environment)
            assert code == 0, output
            made[key] = workdir
        return made[key]

    return run
