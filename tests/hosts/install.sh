#!/bin/sh
# Install from Debian what the tests of several hosts need, unless all of it is there.
set -eu
for tool in sbatch slurmctld slurmd munged mpirun ip; do
    command -v "$tool" >/dev/null || missing=$tool
done
[ -n "${missing:-}" ] || exit 0
apt-get update
apt-get install --yes --no-install-recommends slurm-wlm munge openmpi-bin libopenmpi-dev iproute2
