#!/usr/bin/env bash
# The whole test suite: makes .venv if needed, installs the test extra.
#   bash launch/test.sh [arguments of pytest]
# Files of tests are shared out among processes (-n): jax compiles on one core,
# and a process that has compiled for hours is slow and large.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv_install -e '.[test]'
exec .venv/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile tests "$@"
