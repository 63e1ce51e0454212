#!/usr/bin/env bash
# Builds the tools that tests and CI use, at the versions that tools/go.mod
# pins, into .cache/bin:
#
#   scripts/tools.sh versitygw staticcheck govulncheck act actionlint moto airflow
#
# moto and airflow are Python programs: each gets a virtual environment, .cache/moto,
# with the versions that tools/moto/requirements.txt pins.
#
# A tool that is there at its pinned version is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$PWD/.cache/bin
mkdir -p "$bin"

package() {
  case $1 in
    versitygw) echo github.com/versity/versitygw/cmd/versitygw ;;
    staticcheck) echo honnef.co/go/tools/cmd/staticcheck ;;
    govulncheck) echo golang.org/x/vuln/cmd/govulncheck ;;
    act) echo github.com/nektos/act ;;
    actionlint) echo github.com/rhysd/actionlint/cmd/actionlint ;;
    *) echo "tools.sh: no tool $1; there are versitygw, staticcheck, govulncheck, act, actionlint, moto and airflow" >&2; exit 2 ;;
  esac
}

python_tool() { # name
  local venv=$PWD/.cache/$1 pins=tools/$1/requirements.txt stamp
  stamp=$(cat "$pins" <(python3 --version) | cksum)
  if [[ -x $venv/bin/python && $(cat "$venv/.stamp" 2>/dev/null) == "$stamp" ]]; then
    return
  fi
  echo "installing $1" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$pins"
  echo "$stamp" >"$venv/.stamp"
}

# What a tool was built from: the pins and the compiler.
stamp=$(cat tools/go.mod tools/go.sum <(go version) | cksum)
for tool in "$@"; do
  if [[ $tool == moto || $tool == airflow ]]; then
    python_tool "$tool"
    continue
  fi
  path=$(package "$tool")
  if [[ -x $bin/$tool && $(cat "$bin/.$tool.stamp" 2>/dev/null) == "$stamp" ]]; then
    continue
  fi
  echo "building $tool" >&2
  GOFLAGS="-buildvcs=false" GOOS='' GOARCH='' CGO_ENABLED=0 go -C tools build -o "$bin/$tool" "$path"
  echo "$stamp" >"$bin/.$tool.stamp"
done
