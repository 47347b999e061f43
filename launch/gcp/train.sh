#!/bin/sh
# Train on all hosts of a Cloud TPU slice.
#
#   TPU=my-tpu ZONE=us-west4-a launch/gcp/train.sh --config=configs/resnet50_cifar10.py --workdir=/shared/runs/resnet50
#
# The same command runs on every host of the slice, where JAX finds the others (config.hosts.join=gcetpu). The clone and
# its environment (pip install -e '.[tpu]') are on all of them, and the workdir on a file system that they share, such as
# Filestore. If the run lost a host or was preempted, the same command goes on. Ctrl-C here ends only this end of the
# connections. To stop the run with a checkpoint:
#
#   gcloud compute tpus tpu-vm ssh my-tpu --zone=us-west4-a --worker=all --command='pkill -TERM -f "[j]axcnn.main"'
#
# Variables: TPU and ZONE as above; JAXCNN_HOME, the clone on the hosts, default ~/jaxcnn; JAXCNN_PYTHON, default its
# .venv/bin/python; JAXCNN_MODULE, default jaxcnn.main; GCLOUD, default gcloud.

set -u
: "${TPU:?the name of the TPU VM}" "${ZONE:?its zone}"
quote() { printf "'%s' " "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
flags=
for argument in "$@"; do flags="$flags$(quote "$argument")"; done
# shellcheck disable=SC2088  # the tilde is for the hosts
home=${JAXCNN_HOME:-'~/jaxcnn'}
exec "${GCLOUD:-gcloud}" compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="cd $home && exec ${JAXCNN_PYTHON:-.venv/bin/python} -m ${JAXCNN_MODULE:-jaxcnn.main} $flags--config.hosts.join=gcetpu"
