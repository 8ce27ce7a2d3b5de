#!/usr/bin/env bash
# The whole test suite: makes .venv if needed, installs the test extra.
#   bash launch/test.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv_install -e '.[test]'
exec .venv/bin/python -m pytest tests "$@"
