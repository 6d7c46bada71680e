#!/usr/bin/env bash
# Train on several hosts over ssh. All hosts have this repository, the environment and the workdir in
# the same places; the workdir is on a disk that they share.
#
#   bash launch/ssh.sh "node1 node2" --config=configs/ast.py --workdir=/shared/ast
#
# The first host is the coordinator. One process per host takes all its GPUs. Each host restarts its
# process after exit codes 75 and 76 (launch/one_machine.sh). Ctrl-C saves the last step and ends all.
# If ssh fails or a host has no repository or no asjax, all end, because the others would wait for it.
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
pid_file=/tmp/asjax-${USER:-$UID}-$$
words=$(printf ' %q' "$@")
codes=$(mktemp -d) # a file per host, because bash 5.2 forgets codes of jobs while a trap runs

at() { # at HOST COMMAND
  $ssh -o BatchMode=yes "$1" "$2"
}

# shellcheck disable=SC2329 # the trap calls it
stop() { # SIGTERM to one process stops all of them after the same step
  trap '' INT TERM
  local number
  for number in "${!hosts[@]}"; do # and ends the loop of its host
    (at "${hosts[$number]}" "for i in 1 2 3 4 5 6 7 8 9 10; do if [ -s $pid_file.$number ]; then \
kill -TERM \$(cat $pid_file.$number) 2>/dev/null; break; fi; sleep 1; done" </dev/null &)
  done
}
trap stop INT TERM

start() { # start NUMBER
  at "${hosts[$1]}" "echo \$\$ >$pid_file.$1 && cd $(printf %q "$here") && ${ASJAX_SETUP:-true} && exec \
bash launch/one_machine.sh$words --coordinator=${hosts[0]}:${ASJAX_PORT:-29500} \
--num-processes=${#hosts[@]} --process-id=$1" </dev/null
  local rc=$?
  case $rc in # of ssh: 255; of the host's shell: 1, 126, 127
    1 | 126 | 127 | 255)
      echo "launch: ${hosts[$1]} ended with $rc; the other hosts stop" >&2
      kill -TERM $$
      ;;
  esac
  echo $rc >"$codes/$1"
}

pids=()
for number in "${!hosts[@]}"; do
  start "$number" &
  pids+=($!)
done

worst=0
for number in "${!hosts[@]}"; do
  while kill -0 "${pids[$number]}" 2>/dev/null; do # also after a signal has ended the wait
    wait "${pids[$number]}"
  done
  read -r rc <"$codes/$number" || rc=1
  [ "$rc" -le "$worst" ] || worst=$rc
done
rm -r "$codes"
exit "$worst"
