#!/usr/bin/env bash
# Measures everything on a GPU and writes one JSON file. The machine needs neither Node nor a
# network.
#
#   bench/gpu/run.sh [FILES] [RESULTS]
#
# FILES is the folder that `node bench/gpu/export.ts` wrote (build/gpu), RESULTS the file to write
# (build/gpu-results.json). `node bench/gpu/evaluate.ts RESULTS` works out the figures.
#
# Needs build/native/scmoe-run and libscmoe_cuda.so. If build/native/cuda_device_test was built, it
# is run first, with the arguments SCMOE_OPS_WORDS; it compares ops with the CPU reference. Two
# ranks listen on the ports SCMOE_PORT (39100) and the next one.
#
# Exit code 69: the GPU or software that it needs is missing; the reason is printed. 1: something
# failed; the results say what.
set -uo pipefail
cd "$(dirname "$0")/../.."
files=${1:-build/gpu}
results=${2:-build/gpu-results.json}
native=${SCMOE_NATIVE:-build/native}
run=$native/scmoe-run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -x "$run" ] || { echo "gpu: $run is missing; build it: ninja -C $native scmoe-run" >&2; exit 69; }
[ -e "$files/tiny.json" ] || { echo "gpu: $files/tiny.json is missing; write it: node bench/gpu/export.ts --out $files" >&2; exit 69; }
"$run" "$files/tiny.json" --backend cuda --warm-up 0 --steps 1 >"$work/probe" 2>"$work/reason"
status=$?
if [ $status = 69 ]; then
  echo "gpu: not run: $(cat "$work/reason")" >&2
  exit 69
fi

: >"$work/rows"
failed=0
# row NAME COMMAND... adds a row to the results: the JSON object that the command prints, or its
# error.
row() {
  local name=$1
  shift
  if ("$@") >"$work/out" 2>"$work/err"; then
    printf '{"case":"%s","result":%s}\n' "$name" "$(cat "$work/out")" >>"$work/rows"
    echo "gpu: $name: $(head -1 "$work/err")"
  else
    failed=1
    printf '{"case":"%s","error":"%s"}\n' "$name" "$(tr -d '"\\' <"$work/err" | tr '\n\t' '  ' | tail -c 2000)" >>"$work/rows"
    echo "gpu: $name FAILED: $(tail -3 "$work/err")" >&2
  fi
}
gpu() { "$run" "$1" --backend cuda "${@:2}"; }

# Ops against the CPU reference. Correctness comes first: without it no other figure means anything.
if [ -x "$native/cuda_device_test" ]; then
  if "$native/cuda_device_test" ${SCMOE_OPS_WORDS:-} >"$work/ops.txt" 2>&1; then ops=passed; else ops=failed failed=1; fi
  printf '{"case":"ops","result":{"outcome":"%s","lines":%s}}\n' "$ops" "$(wc -l <"$work/ops.txt")" >>"$work/rows"
  cp "$work/ops.txt" "${results%.json}-ops.txt"
fi

# The same steps on the CPU engine, on the GPU, and on the GPU op by op, to compare the losses.
row tiny-cpu "$run" "$files/tiny.json" --backend cpu --warm-up 0 --steps 10
row tiny gpu "$files/tiny.json" --warm-up 0 --steps 10
row tiny-eager gpu "$files/tiny.json" --warm-up 0 --steps 10 --no-graphs

[ ! -e "$files/tiny-bf16.json" ] || row tiny-bf16 gpu "$files/tiny-bf16.json" --warm-up 0 --steps 10

for peak in "$files"/peak*.json; do row "$(basename "$peak" .json)" gpu "$peak"; done
for model in "$files"/model-*.json; do
  name=$(basename "$model" .json)
  row "$name" gpu "$model"
  row "$name-eager" gpu "$model" --no-graphs
done
for layer in "$files"/layer-*.json; do row "$(basename "$layer" .json)" gpu "$layer"; done

# Every schedule without transfers, which is the bound, and with transfers that a copy engine
# emulates, so long that they take this share of the MoE layers' time.
for schedule in "$files"/overlap-*.json; do
  name=$(basename "$schedule" .json)
  row "$name-free" gpu "$schedule"
  for share in 0.15 0.5 0.6; do row "$name-$share" gpu "$schedule" --transfer-share $share; done
done

# Two ranks of NCCL on one GPU. NCCL refuses two ranks of one host, so each has a host id of its own
# and they connect by the loopback interface.
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
port=${SCMOE_PORT:-39100}
peers=127.0.0.1:$port,127.0.0.1:$((port + 1))
rank() { NCCL_HOSTID="rank $1" exec "$run" "$files/two-ranks-$1.json" --backend cuda --peers $peers "${@:2}"; }
(rank 1 --warm-up 0 --steps 10) >"$work/rank1" 2>&1 &
other=$!
row two-ranks rank 0 --warm-up 0 --steps 10
wait $other || failed=1

# One of two ranks is killed once both train. The other must end by itself and name the lost rank.
rank 1 --steps 100000 >/dev/null 2>&1 &
other=$!
rank 0 --steps 100000 --timeout-seconds 60 >/dev/null 2>"$work/lost" &
survivor=$!
until grep -q 'warm-up done' "$work/lost" || ! kill -0 $survivor 2>/dev/null; do sleep 0.1; done
disown $other  # keeps the shell from reporting that it was killed
kill -9 $other
wait $survivor
code=$?
[ $code = 1 ] && grep -q PEER_LOST "$work/lost" || failed=1
printf '{"case":"rank-killed","result":{"exitCode":%s,"message":"%s"}}\n' $code "$(tail -1 "$work/lost" | tr -d '"\\')" >>"$work/rows"

device=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -1)
{
  printf '{"date":"%s","device":"%s","rows":[\n' "$(date -u +%F)" "$device"
  paste -sd, "$work/rows" | sed 's/},{"case"/},\n{"case"/g'
  printf ']}\n'
} >"$results"
echo "gpu: results in $results"
exit $failed
