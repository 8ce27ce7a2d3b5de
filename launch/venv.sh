# shellcheck shell=bash
# Sourced by local.sh and test.sh, from the root of the checkout: `venv_install
# ARGS` makes .venv once and installs ARGS with the exact versions of
# constraints.txt. A stamp file makes a second call with the same inputs free.

venv_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python." >&2
  return 1
}

venv_install() {
  local python stamp want
  want="$(cat setup.py constraints.txt | cksum) $*"
  stamp=".venv/installed-$(printf '%s' "$*" | cksum | cut -d' ' -f1)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    return
  fi
  if [ ! -x .venv/bin/python ]; then
    python="$(venv_python)"
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  echo "installing: pip install $* (a minute or two the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt "$@"
  printf '%s' "$want" >"$stamp"
}
