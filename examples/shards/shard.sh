#!/bin/sh
#SBATCH --job-name=onnx-harness
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=02:00:00
# One part of the models for each task of a Slurm array: sbatch --array=1-20 shard.sh
# sbatch says the array's number, say 4711. Then: onnx-harness report --merge shards/4711/* -o reports
set -eu
part=$SLURM_ARRAY_TASK_ID
parts=$SLURM_ARRAY_TASK_COUNT
# Each array has a folder of its own: the next night plans and judges anew.
folder=shards/$SLURM_ARRAY_JOB_ID/$part
# A task that Slurm starts again goes on where it was ended. Exit code 1 is a verdict, 5 an empty part.
# Every part plans by the times of the last merged run, where there is one.
if [ -f reports/results.json ]; then set -- --shard-times reports "$@"; fi
code=0
python3 -m pytest models --shard "$part/$parts" --resume --report-dir "$folder" "$@" || code=$?
case $code in 0 | 1 | 5) ;; *) exit "$code" ;; esac
