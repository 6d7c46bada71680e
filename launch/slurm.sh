#!/usr/bin/env bash
# Train under SLURM; the job goes back into the queue until the run has finished.
#
#   sbatch launch/slurm.sh --config=configs/ast.py --workdir=/shared/ast
#
# Set the lines below for your cluster, or give them to sbatch. One task per GPU, or one task per node
# that takes all GPUs of its node: both work.
#SBATCH --job-name=asjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -u

# SIGTERM goes to the tasks, which save and end with 75. This shell must live to requeue the job. The
# handler does nothing; a signal that is ignored would be ignored by srun too.
trap : TERM

srun asjax train "$@" --coordinator=auto &
step=$!
wait "$step"
rc=$?
while kill -0 "$step" 2>/dev/null; do # a signal has ended the wait
  wait "$step"
  rc=$?
done

# 0: finished. 2: an error of the user, which would come again. All others go on from the last
# checkpoint: 75, 76, and codes of a killed task (srun gives 137 or 143 then).
case $rc in
  0 | 2) ;;
  *)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${ASJAX_RESTARTS:-20}" ]; then
      echo "launch: exit code $rc; restart $((${SLURM_RESTART_COUNT:-0} + 1))" >&2
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$rc"
