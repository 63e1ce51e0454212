#!/bin/sh
# Runs the benchmarks; see README.md. Flags: -scale, -rounds, -only, -work, -jobs.
set -e
cd "$(dirname "$0")/.."
exec go run ./bench "$@"
