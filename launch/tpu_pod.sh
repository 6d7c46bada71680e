#!/usr/bin/env bash
# Train on all hosts of a TPU pod slice. Each host has this repository and the environment, and the
# workdir is on a disk that they share (Filestore, NFS).
#
#   bash launch/tpu_pod.sh NAME ZONE --config=configs/ast.py --workdir=/shared/ast
#
# Each host restarts its process after exit codes 75 and 76. To stop, send SIGTERM to one_machine.sh on
# every host, or delete the slice. The run can go on later, also on another slice.
# ASJAX_DIR: the repository on the hosts (asjax). ASJAX_SETUP: a command before. GCLOUD: the program.
set -u

if [ $# -lt 3 ]; then
  echo "usage: $0 NAME ZONE OPTIONS OF asjax train" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
words=$(printf ' %q' "$@")
command="cd ${ASJAX_DIR:-asjax} && ${ASJAX_SETUP:-true} && \
exec bash launch/one_machine.sh$words --coordinator=auto"
exec ${GCLOUD:-gcloud} compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="$command"
