#!/usr/bin/env bash
# A Ray cluster for the length of a Slurm job: a head on its first node, workers on the others, one command, and the end.
#
#   bash cluster/install.sh s3          once, on the login node; the home must be shared by the nodes
#   sbatch [--nodes=4 --time=8:00:00 --partition=...] cluster/slurm.sh \
#     bat-dist memorize --dataset cifar10 --data_dir data --num_trials 1000 --gpus_per_trial 0.25 --out /shared/cifar10
#
# What stands at #SBATCH is a default: options of sbatch win.  When the time is up the command is asked to end (SIGTERM, two
# minutes before), the job goes back into the queue, and the same command goes on from what is finished; so it does when
# the job is preempted.  `scancel` ends it for good.
#
#SBATCH --job-name=bat-dist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# shellcheck disable=SC2329  # functions that a trap or `run` calls
set -euo pipefail

say() { echo "bat_dist: $*"; }
fail() { echo "bat_dist: $*" >&2; exit 1; }

[ $# -gt 0 ] || fail "no command: sbatch cluster/slurm.sh bat-dist memorize ..."
[ -n "${SLURM_JOB_ID:-}" ] || fail "this is for sbatch"
[ -f "$HOME/.bat-dist/env.sh" ] || fail "no $HOME/.bat-dist/env.sh: run cluster/install.sh once, in a home that the nodes share"
# shellcheck source=/dev/null
. "$HOME/.bat-dist/env.sh"
ulimit -n 65536 2>/dev/null || true

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
secret=$HOME/.bat-dist/slurm-$SLURM_JOB_ID
tmp=/tmp/bat-dist-$SLURM_JOB_ID      # on each node; /tmp/ray may belong to somebody else

# Other jobs may run a Ray on the same nodes: ports of this job's own.
port=$((20000 + SLURM_JOB_ID % 2000 * 5))
ip=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}') || true
case $ip in "" | 127.*) ip=$(hostname -I | awk '{print $1}') ;; esac   # some call themselves 127.0.1.1
[ -n "$ip" ] || fail "no address found for $head"
address=$ip:$port

steps=() child='' stopping='' again=''
on_term() {
  stopping=yes
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
}
trap on_term TERM

clean_up() {
  local code=$?
  trap '' TERM
  [ ${#steps[@]} -eq 0 ] || kill -TERM "${steps[@]}" 2>/dev/null || true   # srun passes it on: Ray ends on all nodes
  wait || true
  rm -rf "$secret"
  [ -z "$again" ] || scontrol requeue "$SLURM_JOB_ID"
  exit "$code"
}
trap clean_up EXIT

# The cluster's password: this job's alone, readable by its owner alone, gone with the job.
rm -rf "$secret" "$tmp"
mkdir -m 700 "$secret" "$tmp"
(umask 077 && od -An -vtx1 -N32 /dev/urandom | tr -d ' \n' > "$secret/auth_token")
export RAY_AUTH_TOKEN_PATH=$secret/auth_token

# Runs a command to its end.  Bash hears a signal only while it waits for something in the background.
run() {
  local code
  "$@" & child=$!
  while :; do
    wait "$child" && code=0 || code=$?
    if [ "$code" -le 128 ] || ! kill -0 "$child" 2>/dev/null; then break; fi
  done
  child=''
  return "$code"
}

# NVIDIA's MPS for workers that share a GPU; of this job alone, since it ends with the job.
[ "${BAT_DIST_MPS:-1}" = 0 ] || export BAT_DIST_MPS=$tmp/mps
ray_start=(python -m bat_dist.workers.mps python -m bat_dist.workers.start_again ray start)

# A step of the job that goes on in the background, and a file for what it says.  A lost node must not end the others.
step() {
  local log=$tmp/$1.log
  srun --export=ALL --no-kill --kill-on-bad-exit=0 --ntasks-per-node=1 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} "${@:2}" >"$log" 2>&1 &
  steps+=($!)
}
# Ray would count all cores of the machine, not those of the job.  GPUs it counts by CUDA_VISIBLE_DEVICES, which Slurm sets.
ray_options=(--block --temp-dir="$tmp" --num-cpus="${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}"
  --object-store-memory=2000000000 --dashboard-agent-listen-port=$((port + 3)) --metrics-export-port=$((port + 4)))

say "job $SLURM_JOB_ID: ${#nodes[@]} node(s), the head is $head; Ray's logs are in $tmp there"
step head --nodes=1 --ntasks=1 --nodelist="$head" "${ray_start[@]}" --head --node-ip-address="$ip" --port="$port" \
  --ray-client-server-port=$((port + 1)) --dashboard-host=127.0.0.1 --dashboard-port=$((port + 2)) "${ray_options[@]}"
for _ in $(seq 60); do
  kill -0 "${steps[0]}" 2>/dev/null || { tail -n 5 "$tmp/head.log" >&2; fail "the head did not start"; }
  [ -z "$stopping" ] || break
  ! run timeout 20 ray health-check --address "$address" >/dev/null 2>&1 || break
  run sleep 1 || true
done
if [ ${#nodes[@]} -gt 1 ] && [ -z "$stopping" ]; then
  others=$((${#nodes[@]} - 1))
  step workers --nodes="$others" --ntasks="$others" --exclude="$head" "${ray_start[@]}" --address="$address" "${ray_options[@]}"
fi
export RAY_ADDRESS=$address

# All nodes, or after some minutes those that came.
wait_for_nodes() {
  exec python - "${#nodes[@]}" "${BAT_DIST_WAIT_MINUTES:-5}" <<'PYTHON'
import logging
import sys
import time

import ray

wanted, end = int(sys.argv[1]), time.monotonic() + 60 * float(sys.argv[2])
ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
while (there := sum(node["Alive"] for node in ray.nodes())) < wanted and time.monotonic() < end:
    time.sleep(1)
print(f"bat_dist: {there} of {wanted} nodes are there", flush=True)
PYTHON
}
[ -n "$stopping" ] || run wait_for_nodes || [ -n "$stopping" ] || fail "no Ray answers at $address: look into $tmp on $head"

code=0
if [ -z "$stopping" ]; then run "$@" || code=$?; else code=1; fi

# Still RUNNING: the time is up, or the job is preempted.  Somebody's scancel has made it something else.
still_running() { scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null | grep -q ' JobState=RUNNING '; }
if [ -n "$stopping" ] && [ "$code" -ne 0 ] && still_running; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "${BAT_DIST_RESTARTS:-50}" ]; then
    again=yes
    say "stopped before the end: back into the queue"
  else
    say "stopped before the end, after $SLURM_RESTART_COUNT restarts: give the same command again"
  fi
fi
exit "$code"
