#!/usr/bin/env bash
# The main job on this machine: makes .venv, installs, trains, reports.
#   bash launch/local.sh [flags of launch/run.py]
# Without flags: --gin_file=gin/flan_holdout_nli.gin on the embedded sample.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv_install -e .
if [ "$#" -eq 0 ]; then
  set -- --gin_file=gin/flan_holdout_nli.gin
fi
exec .venv/bin/python launch/run.py "$@"
