#!/bin/sh
# Train on several hosts without a scheduler, by ssh.
#
#   launch/ssh/train.sh hosts.txt --config=configs/resnet50_cifar10.py --workdir=/shared/runs/resnet50
#
# hosts.txt has one host a line, as ssh knows it; what follows the name (slots=8) and comments (#) are ignored. The
# first one is the coordinator and must be reachable by that name from the others. The clone, its environment and the
# workdir are at the same place on all hosts. All further arguments go to `python -m jaxcnn.main`. SIGTERM, SIGHUP,
# SIGUSR1 or Ctrl-C here ends the run with a checkpoint.
#
# Variables, all optional: JAXCNN_HOME, JAXCNN_PYTHON, JAXCNN_SETUP, JAXCNN_MODULE as in launch/slurm/train.sbatch;
#   COORDINATOR      <host>:<port> of the first host; default: its name and port 7733
#   REMOTE           what starts a command on a host; default: "ssh -o BatchMode=yes". It gets the host and one
#                    argument, a command line for a POSIX shell
#   JAXCNN_RESTARTS  how often a run that lost a process is started again; default 5
#   JAXCNN_GRACE     seconds that the others have to end by themselves when one has ended, and again after SIGTERM,
#                    before SIGKILL; default 60

set -u
hosts=${1:?usage: train.sh hosts.txt --config=... --workdir=...}
shift
home=${JAXCNN_HOME:-$(cd "$(dirname "$0")/../.." && pwd)}
names=$(awk '{ sub(/#.*/, "") } NF { print $1 }' "$hosts") || exit 2
if [ -z "$names" ]; then
    echo "train.sh: $hosts names no host; write one a line" >&2
    exit 2
fi
number=$(printf '%s\n' "$names" | wc -l | tr -d ' ')
first=$(printf '%s\n' "$names" | sed -n 1p)
coordinator=${COORDINATOR:-$first:7733}
remote=${REMOTE:-ssh -o BatchMode=yes -o ServerAliveInterval=10 -o ServerAliveCountMax=3}
python=${JAXCNN_PYTHON:-$home/.venv/bin/python}
module=${JAXCNN_MODULE:-jaxcnn.main}
grace=${JAXCNN_GRACE:-60}

quote() { printf "'%s' " "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
flags=
for argument in "$@"; do flags="$flags$(quote "$argument")"; done

scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
mkfifo "$scratch/held" || exit 2

# The processes' standard input is held open here. Where it closes, be it by a signal or because this host is gone,
# each remote shell sends its process SIGTERM, which ends the run with a checkpoint, and SIGKILL if it is still there
# after the grace: a stopped process (SIGSTOP) takes nothing else.
#
# What proves to the processes that they are of one run comes first on that input, as a command line can be seen by all.
token=${JAXCNN_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
start() { # start <process> <host>
    own="--config.hosts.coordinator=$coordinator --config.hosts.processes=$number --config.hosts.process=$1"
    line="IFS= read -r JAXCNN_TOKEN; export JAXCNN_TOKEN; exec 3<&0"
    line="$line; ${JAXCNN_SETUP:-:}; cd $(quote "$home")|| exit 2; $(quote "$python")-m $module $flags$own & "
    line="$line pid=\$!; { cat <&3; kill -TERM \$pid; sleep $grace; kill -KILL \$pid; } >/dev/null 2>&1 & "
    line="${line}watch=\$!; wait \$pid; code=\$?; kill \$watch 2>/dev/null; exit \$code"
    [ -p "$scratch/$1.input" ] || mkfifo "$scratch/$1.input"
    { printf '%s\n' "$token"; exec cat <&5; } >"$scratch/$1.input" &
    feeding=$!
    # shellcheck disable=SC2086  # the command is to be split
    $remote "$2" "$line" <"$scratch/$1.input" 5<&- &
    trap 'kill "$!" 2>/dev/null' TERM
    wait "$!"
    echo $? >"$scratch/$1.code"
    kill "$feeding" 2>/dev/null
}

count=0
stopped=
trap 'stopped=1; exec 4>&-' TERM INT HUP USR1
while :; do
    exec 4<>"$scratch/held"
    if [ -n "$stopped" ]; then exit 75; fi # the signal came between two starts
    process=0
    jobs=
    for host in $names; do
        (exec 5<"$scratch/held" 4>&-; start "$process" "$host") & # only this shell holds it open for writing
        jobs="$jobs $!"
        process=$((process + 1))
    done
    ended=0
    waited=0
    while [ "$ended" -lt "$number" ]; do
        sleep 1
        ended=$(find "$scratch" -name '*.code' | wc -l)
        [ "$ended" -gt 0 ] && waited=$((waited + 1))
        if [ "$waited" -eq "$grace" ]; then # the others should have followed; a process may be stopped
            exec 4>&-
        elif [ "$waited" -gt "$((2 * grace + 10))" ]; then # not even SIGKILL ended them; a host may be gone
            # shellcheck disable=SC2086  # several numbers
            kill $jobs 2>/dev/null
            break
        fi
    done
    exec 4>&-
    code=$(cat "$scratch"/*.code | sort -n | awk '{ if ($1 != 0 && $1 != 75 && $1 < 134) other = $1; last = $1 }
        END { print other ? other : last }')
    rm -f "$scratch"/*.code
    case $code in 75 | 134 | 137 | 143 | 255) ;; *) exit "$code" ;; esac
    count=$((count + 1))
    if [ -n "$stopped" ] || [ "$count" -gt "${JAXCNN_RESTARTS:-5}" ]; then exit 75; fi
    echo "train.sh: exit code $code: start $count of ${JAXCNN_RESTARTS:-5} after a failure" >&2
done
