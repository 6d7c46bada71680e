#!/usr/bin/env bash
# Train on several hosts over ssh. All hosts have this repository, the environment and the workdir in
# the same places; the workdir is on a disk that they share.
#
#   bash launch/ssh.sh "node1 node2" --config=configs/ast.py --workdir=/shared/ast
#
# The first host is the coordinator. One process per host takes all its GPUs. Each host restarts its
# process after exit codes 75 and 76 (launch/one_machine.sh). Ctrl-C saves the last step and ends all.
# ASJAX_PORT: port on the first host (29500). ASJAX_SETUP: a command before, such as an activation of
# a virtual environment. ASJAX_SSH: the program in place of ssh.
set -um # m: Ctrl-C reaches the ssh processes only through `stop`

if [ $# -lt 2 ]; then
  echo "usage: $0 \"HOST HOST ...\" OPTIONS OF asjax train" >&2
  exit 2
fi
read -r -a hosts <<<"$1"
shift
here=$(cd "$(dirname "$0")/.." && pwd)
ssh=${ASJAX_SSH:-ssh}
pid_file=/tmp/asjax-$USER-$$.pid
words=$(printf ' %q' "$@")

at() { # at HOST COMMAND
  $ssh -o BatchMode=yes "$1" "$2"
}

# shellcheck disable=SC2329 # the trap calls it
stop() { # SIGTERM to one process stops all of them after the same step
  for host in "${hosts[@]}"; do # and ends the loop of its host
    at "$host" "kill -TERM \$(cat $pid_file)" </dev/null
  done
}
trap stop INT TERM

pids=()
for number in "${!hosts[@]}"; do
  command="cd $(printf %q "$here") && ${ASJAX_SETUP:-true} && echo \$\$ >$pid_file && exec \
bash launch/one_machine.sh$words --coordinator=${hosts[0]}:${ASJAX_PORT:-29500} \
--num-processes=${#hosts[@]} --process-id=$number"
  at "${hosts[$number]}" "$command" </dev/null &
  pids+=($!)
done

worst=0
for pid in "${pids[@]}"; do
  wait "$pid"
  rc=$?
  while kill -0 "$pid" 2>/dev/null; do # a signal has ended the wait
    wait "$pid"
    rc=$?
  done
  [ "$rc" -le "$worst" ] || worst=$rc
done
exit "$worst"
