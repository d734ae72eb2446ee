#!/bin/bash
# A cohort as a job array: one shard a task. Set SCANWISE, SCANS and RESULTS, then `sbatch docs/slurm.sh`; when all
# tasks are done: python cohort.py merge answers.shard-*-of-8.csv --out answers.csv
#SBATCH --job-name=scanwise
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# A task that is killed, preempted or out of time is queued again and goes on where it was.
#SBATCH --signal=TERM@60

set -euo pipefail
: "${SCANWISE:?the folder of the program}" "${SCANS:?what to judge}" "${RESULTS:?the table, such as answers.csv}"
exec "${PYTHON:-$SCANWISE/.venv/bin/python}" "$SCANWISE/cohort.py" "$SCANS" --out "$RESULTS" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" ${OPTIONS:-}
