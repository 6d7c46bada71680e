#!/usr/bin/env bash
# Train on one machine, and go on after a stop (75) or a hang (76): the same command resumes the run.
#
#   bash launch/one_machine.sh --config=configs/ast.py --workdir=runs/ast
#
# All arguments go to `asjax train`. Ctrl-C and SIGTERM save the last step and end the loop.
# ASJAX_RESTARTS: most restarts (20). ASJAX_PAUSE_S: seconds before a restart (10).
set -um # m: a process group for the child, so that Ctrl-C reaches it once only, through `stop`

child=0 stopped=0
# shellcheck disable=SC2329 # the trap calls it
stop() {
  stopped=1
  [ "$child" -eq 0 ] || kill -TERM "$child" 2>/dev/null
}
trap stop INT TERM

restarts=0
while :; do
  asjax train "$@" & # in the background, because a shell handles signals only while it waits
  child=$!
  [ "$stopped" -eq 0 ] || kill -TERM "$child" 2>/dev/null # the signal came before there was a child
  wait "$child"
  rc=$?
  while kill -0 "$child" 2>/dev/null; do # a signal has ended the wait, the child still saves
    wait "$child"
    rc=$?
  done
  child=0
  case $rc in
    75 | 76 | 134 | 137 | 143) ;; # 134: abort, 137: killed (memory?), 143: ended by SIGTERM
    *) exit "$rc" ;;
  esac
  restarts=$((restarts + 1))
  if [ "$stopped" -eq 1 ] || [ "$restarts" -gt "${ASJAX_RESTARTS:-20}" ]; then
    exit "$rc"
  fi
  echo "launch: exit code $rc; restart $restarts of at most ${ASJAX_RESTARTS:-20}" >&2
  sleep "${ASJAX_PAUSE_S:-10}" &
  wait $!
  [ "$stopped" -eq 0 ] || exit "$rc"
done
