#!/usr/bin/env bash
# The times of a run on machines that are of our own making, on the machines of
# internal/hypervisor: bench/fleet.sh [rounds]. Needs root on Linux.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.cache/bin:$PATH" CI=true # without machines it fails, instead of measuring nothing
scripts/tools.sh versitygw moto
exec go test ./internal/e2e -run '^$' -bench '^BenchmarkFleet$' -benchtime "${1:-5}x"
