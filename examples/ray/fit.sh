#!/bin/sh
# Fit a model on the machines of cluster.yaml: sh examples/ray/fit.sh MODEL BUDGET TEXT OUT
#
# Run on the head node after `ray up examples/ray/cluster.yaml`. One worker on each node; with GPUs add `--device cuda --gpus-per-worker 1`.
set -eu
exec bitwright fit "$1" --budget "$2" --calibration "$3" --out "$4" --ray "$(hostname):6379"
