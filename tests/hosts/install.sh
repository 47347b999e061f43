#!/bin/sh
# Install from Debian what the tests of several hosts need, unless all of it is there; and mpi4py, which is built against
# Debian's Open MPI, into the virtual environment. Without mpi4py its test is skipped.
set -eu
cd "$(dirname "$0")/../.."
for tool in sbatch slurmctld slurmd munged mpirun ip; do
    command -v "$tool" >/dev/null || missing=$tool
done
if [ -n "${missing:-}" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install --yes --no-install-recommends slurm-wlm munge openmpi-bin libopenmpi-dev iproute2
fi
python=.venv/bin/python
if [ -x "$python" ] && ! "$python" -c 'import mpi4py' 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check mpi4py==4.1.1 ||
        echo "mpi4py could not be installed; its test is skipped" >&2
fi
