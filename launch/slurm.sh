#!/usr/bin/env bash
# The batch script of launch/slurm.py: one process for every GPU.
#   sbatch [options] launch/slurm.sh [flags of launch/run.py]
# Before its time is over SLURM sends USR1 (--signal=B:USR1@120): the job saves,
# exits with 75, and is put into the queue again, where it goes on.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?is set by sbatch}" || exit

STOPPED=75
python="${FLAN_JAX_PYTHON:-.venv/bin/python}"
if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
  export JAX_DISTRIBUTED=1
fi
time_is_over=""
step=""
trap 'time_is_over=yes; [ -z "$step" ] || kill -TERM "$step"' USR1
# A task that dies ends the others.
srun --kill-on-bad-exit=1 "$python" launch/run.py "$@" &
step=$!
while :; do
  wait "$step"
  code=$?
  # 128 + USR1: the signal ended `wait`, not the step.
  [ "$code" -eq 138 ] || break
done
echo "launch/run.py ended with exit code $code"
if [ -n "$time_is_over" ] && [ "$code" -eq "$STOPPED" ]; then
  echo "the time limit is near: job $SLURM_JOB_ID is put into the queue again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
