#!/bin/sh
# Train on several hosts under MPI.
#
#   mpirun -np 2 --host h1,h2 launch/mpi/train.sh --config=configs/resnet50_cifar10.py --workdir=/shared/runs/resnet50
#
# or, with Open MPI's options for signals and one process per host chosen here:
#
#   HOSTS=h1,h2 launch/mpi/train.sh --config=... --workdir=...
#
# Open MPI 4 is found by JAX itself; its mpirun must run on the first host. Other MPIs (MPICH, Intel MPI, Cray, Open
# MPI 5) need mpi4py: pip install 'jaxcnn[mpi]'. All arguments go to `python -m jaxcnn.main`.
#
# Open MPI hands only variables of its own to other hosts; those whose names begin with JAXCNN_, JAX_, XLA_ or NCCL_,
# and TFDS_DATA_DIR, are handed on here, others by MPIRUN_OPTIONS="-x NAME".
#
# Variables, all optional: JAXCNN_HOME, JAXCNN_PYTHON, JAXCNN_SETUP, JAXCNN_MODULE as in launch/slurm/train.sbatch;
#   HOSTS            hosts separated by commas, <host>:<processes> for several on one
#   MPIRUN           default: mpirun
#   MPIRUN_OPTIONS   such as "--allow-run-as-root --mca btl_tcp_if_include eth0"
#   JAXCNN_RESTARTS  how often a run that lost a process is started again; default 5

set -u
here=$(cd "$(dirname "$0")" && pwd)
home=${JAXCNN_HOME:-$(dirname "$(dirname "$here")")}

if [ -n "${OMPI_COMM_WORLD_RANK:-}${PMI_RANK:-}${PMIX_RANK:-}" ]; then # one of the processes
    if [ -n "${JAXCNN_SETUP:-}" ]; then eval "$JAXCNN_SETUP"; fi
    cd "$home" || exit 2
    python=${JAXCNN_PYTHON:-.venv/bin/python}
    [ -x "$python" ] || [ -n "${JAXCNN_PYTHON:-}" ] || python=python3
    exec "$python" -m "${JAXCNN_MODULE:-jaxcnn.main}" "$@"
fi

if [ -z "${HOSTS:-}" ]; then
    echo "train.sh: name the hosts: HOSTS=h1,h2 $0 ..., or start it by mpirun" >&2
    exit 2
fi
mpirun=${MPIRUN:-mpirun}
version=$("$mpirun" --version 2>/dev/null)
options=
case $version in *'Open MPI)'*)
    # What proves to the processes that they are of one run; other MPIs may not hand it to all hosts.
    JAXCNN_TOKEN=${JAXCNN_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
    export JAXCNN_TOKEN
    options=$(awk 'BEGIN { for (name in ENVIRON)
        if (name ~ /^(JAXCNN|JAX|XLA|NCCL)_[A-Za-z0-9_]*$/ || name == "TFDS_DATA_DIR") printf "-x %s ", name }') ;;
esac
case $version in *'Open MPI) '[1-4]*) # which kills 2 s after SIGTERM; a checkpoint may take longer
    options="$options--mca odls_base_sigkill_timeout 30" ;;
esac

count=0
job=
stopped=
trap 'stopped=1; woken=1; [ -z "$job" ] || kill -TERM "$job" 2>/dev/null' TERM INT HUP USR1
while [ -z "$stopped" ]; do
    # shellcheck disable=SC2086  # options are to be split
    "$mpirun" --host "$HOSTS" $options ${MPIRUN_OPTIONS:-} "$here/train.sh" "$@" &
    job=$!
    [ -z "$stopped" ] || kill -TERM "$job" # the signal came while there was no job to pass it on to
    woken=1
    while [ -n "$woken" ]; do # as long as a signal ended the wait, and not the job
        woken=
        wait "$job"
        code=$?
    done
    case $code in 75 | 134 | 137 | 143) ;; *) exit "$code" ;; esac
    job=
    count=$((count + 1))
    if [ -n "$stopped" ] || [ "$count" -gt "${JAXCNN_RESTARTS:-5}" ]; then exit 75; fi
    echo "train.sh: exit code $code: start $count of ${JAXCNN_RESTARTS:-5} after a failure" >&2
done
exit 75
