#!/bin/bash
# Trains on several machines with Slurm; underneath it is only torchrun.
#     sbatch --nodes 2 examples/slurm.sh runs/mine full
# The folder (with its tokens step done) must be one that all machines see. Killed by the time limit, the job
# saves a checkpoint on SIGTERM and is put back into the queue; the same command resumes, on any number of machines.
#SBATCH --job-name=domain-llm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
out=${1:?the folder of the run}
size=${2:-full}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:29500" \
    -m domain_llm pretrain --out "$out" --size "$size" --compile
