#!/usr/bin/env bash
# A search over the nodes of a SLURM allocation (docs/cluster.md). From a checkout with .venv, on a file system that all
# nodes see:
#
#   sbatch cluster/slurm.sh cifar --data images/ --trials 500 --device cuda
#
# Before its time is over it stops gently, is queued again, and goes on where it was.
#SBATCH --job-name=nas
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@1800
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nas-%j.log
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
# shellcheck source=/dev/null
. .venv/bin/activate

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} # where this script runs
ip=$(hostname -I | cut -d ' ' -f 1) # this node's first network; put a faster one here
port=$((20000 + SLURM_JOB_ID % 5000 * 2)) # and the next one: no two jobs of a node share them
cpus=${SLURM_CPUS_PER_TASK:-1}

# Others may compute on the same nodes: only who has this token can talk to this Ray, and nobody finds theirs by mistake.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_ADDRESS=$ip:$port RAY_USAGE_STATS_ENABLED=0
ray_node=(
  ray start --block --num-cpus="$cpus" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
  --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 # any free ports
)

srun --nodes=1 --ntasks=1 --nodelist="$head" --cpus-per-task="$cpus" --overlap \
  env -u RAY_ADDRESS "${ray_node[@]}" --head --node-ip-address="$ip" --port="$port" \
  --ray-client-server-port=$((port + 1)) --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" &
steps=($!)
until (: <"/dev/tcp/$ip/$port") 2>/dev/null; do
  kill -0 "${steps[0]}" || exit 1
  sleep 1
done
if ((${#nodes[@]} > 1)); then
  others=$((${#nodes[@]} - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="$head" --cpus-per-task="$cpus" --overlap \
    "${ray_node[@]}" --address="$RAY_ADDRESS" &
  steps+=($!)
fi

# The job keeps its number when it is queued again, and so finds its run directory.
cluster/search.sh "results/slurm-$SLURM_JOB_ID" "$@" &
driver=$!
out_of_time=0
trap 'out_of_time=1; kill -USR1 "$driver" || true' USR1

while kill -0 "$driver" 2>/dev/null; do
  wait "$driver" || true # a signal ends the wait, not the driver
done
status=0
wait "$driver" || status=$?

kill "${steps[@]}" 2>/dev/null || true
if ((out_of_time && status == 75)); then # stopped before its end, and not by `nas stop`
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
