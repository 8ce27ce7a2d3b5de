"""What a curation run read, decided and wrote: `manifest.json`.

A run's folder holds what it wrote, each file named in the manifest with its
hash. Training that reads one of them records the manifest (`beside`), and a
judge reads the models in it (`flan_jax/judge.py: manifest_models`).
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import config as config_lib
from flan_jax.errors import UserError

NAME = "manifest.json"
FORMAT = "flan_jax curation 1"
_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class File:
  """A file by content.

  Attributes:
    path: as the run was given it; of an output, its name in the run's folder.
    sha256: of its bytes, in hex.
    bytes: its size.
    rows: lines, of a .jsonl or .tsv file; None: not counted.
  """

  path: str
  sha256: str
  bytes: int
  rows: int | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
  """One curation run.

  Attributes:
    method: "self_instruct", "k_center", ...
    inputs: what it read, by role ("data", "seeds", ...).
    outputs: files of its folder.
    options: of the run, JSON.
    counts: by stage: decision -> how many; "kept" and the reasons of dropping.
    models: what each model was for -> its name under "model", and what else
      identifies it.
    totals: tokens, requests, cost, seconds; numbers.
    notes: sentences that a reader should know.
    command, config: how it was called, and its resolved gin configuration.
    versions: of what ran.
    created: when it was written, UTC.
  """

  method: str
  inputs: Mapping[str, Sequence[File]]
  outputs: Mapping[str, File]
  options: Mapping[str, Any]
  counts: Mapping[str, Mapping[str, int]]
  models: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  totals: Mapping[str, float] = dataclasses.field(default_factory=dict)
  notes: Sequence[str] = ()
  command: Sequence[str] = ()
  config: str = ""
  versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  created: str = ""

  def fingerprint(self) -> str:
    """Eight hex digits of all but when and how it was called."""
    value = dataclasses.asdict(self)
    for name in ("command", "created", "totals"):
      del value[name]
    return config_lib.fingerprint(json.dumps(value, sort_keys=True))


def describe(path: str | os.PathLike, name: str | None = None) -> File:
  """A file's size, hash and lines.

  >>> describe("/dev/null").rows is None
  True

  Args:
    path: of the file.
    name: what stands for its path; None: the path as given.

  Raises:
    UserError: it cannot be read.
  """
  digest, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
  try:
    with open(path, "rb") as file:
      while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        lines += piece.count(b"\n")
        last = piece[-1:]
  except OSError as e:
    raise UserError(f"{path} cannot be read: {e.strerror}.") from None
  counted = pathlib.Path(path).suffix in (".jsonl", ".tsv")
  rows = lines + (last != b"\n") if counted else None
  return File(
    str(path if name is None else name), digest.hexdigest(), size, rows
  )


def begin(folder: str | os.PathLike) -> pathlib.Path:
  """Makes a run's folder and takes an earlier run's manifest away.

  So a run that is killed leaves no manifest of files that it has replaced.

  Raises:
    UserError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).unlink(missing_ok=True)
  except OSError as e:
    raise UserError(
      f"OUTPUT_DIR {str(folder)!r} cannot be written: {e.strerror}. Give a"
      " folder you may write to: --gin.OUTPUT_DIR=..."
    ) from None
  return folder


def write(
  folder: str | os.PathLike,
  *,
  method: str,
  inputs: Mapping[str, str | os.PathLike | Sequence[str | os.PathLike]],
  outputs: Sequence[str],
  options: Mapping[str, Any],
  counts: Mapping[str, Mapping[str, int]],
  models: Mapping[str, Mapping[str, Any]] | None = None,
  totals: Mapping[str, float] | None = None,
  notes: Sequence[str] = (),
) -> Manifest:
  """Writes `manifest.json`, by one rename and after all that it names.

      write("runs/mine", method="random", inputs={"data": "dolly.json"},
            outputs=("data.jsonl", "decisions.jsonl"), options={"count": 300},
            counts={"selection": {"kept": 300, "not drawn": 2696}})

  Args:
    folder: of the run.
    method: its name.
    inputs: paths by role; hashed here.
    outputs: names of files in the folder; hashed here.
    options: whatever JSON can hold.
    counts: see `Manifest`.
    models: see `Manifest`; each has its name under "model".
    totals: see `Manifest`.
    notes: see `Manifest`.

  Raises:
    UserError: a file is missing, a model without "model", options that are no
      JSON, or the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  for role, model in (models or {}).items():
    if not isinstance(model.get("model"), str):
      raise UserError(
        f"the manifest's model {role!r} has no 'model', its name; it has"
        f" {', '.join(model) or 'nothing'}."
      )
  current = config_lib.current()
  made = Manifest(
    method=method,
    inputs={
      role: [describe(p) for p in _listed(paths)]
      for role, paths in inputs.items()
    },
    outputs={name: describe(folder / name, name) for name in outputs},
    options=options,
    counts=counts,
    models=models or {},
    totals=totals or {},
    notes=list(notes),
    command=list(current[1]) if current else [],
    config=current[0].text if current else "",
    versions={"flan_jax": importlib.metadata.version("flan_jax")},
    created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  )
  try:
    text = json.dumps(
      {"format": FORMAT, **dataclasses.asdict(made)},
      indent=1,
      ensure_ascii=False,
      allow_nan=False,
    )
  except (TypeError, ValueError) as e:
    raise UserError(f"the manifest's options are no JSON: {e}.") from None
  draft = folder / f".{NAME}.tmp"
  try:
    with open(draft, "w", encoding="utf-8") as file:
      file.write(text + "\n")
      file.flush()
      os.fsync(file.fileno())
    os.replace(draft, folder / NAME)
  except OSError as e:
    raise UserError(
      f"OUTPUT_DIR {str(folder)!r} cannot be written: {e.strerror}."
    ) from None
  return made


def read(path: str | os.PathLike) -> Manifest:
  """The manifest of a run's folder, or of a file.

  Raises:
    UserError: there is none, or it is not one of ours.
  """
  path = pathlib.Path(path)
  path = path / NAME if path.is_dir() else path
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as e:
    reason = getattr(e, "strerror", None) or e
    raise UserError(f"the manifest {path} cannot be read: {reason}.") from None
  found = value.pop("format", None) if isinstance(value, dict) else None
  if found != FORMAT:
    raise UserError(
      f"{path} is no manifest of a curation run: its 'format' is {found!r},"
      f" not {FORMAT!r}."
    )
  try:
    value["inputs"] = {
      role: [File(**f) for f in files]
      for role, files in value["inputs"].items()
    }
    value["outputs"] = {n: File(**f) for n, f in value["outputs"].items()}
    return Manifest(**value)
  except (KeyError, TypeError, AttributeError) as e:
    raise UserError(f"the manifest {path} is damaged: {e}.") from None


def beside(path: str | os.PathLike) -> Manifest | None:
  """The manifest of the run that wrote a data file; None: there is none.

      beside("runs/mine/data.jsonl").method
      # 'k_center'

  Args:
    path: of the data file; the manifest lies in the same folder and names it.

  Raises:
    UserError: the file is not what the manifest says, or the manifest is
      damaged.
  """
  path = pathlib.Path(path)
  file = path.parent / NAME
  try:
    if json.loads(file.read_text(encoding="utf-8"))["format"] != FORMAT:
      return None
  except (OSError, ValueError, KeyError, TypeError):
    return None
  made = read(file)
  said = made.outputs.get(path.name)
  if said is None:
    return None
  found = describe(path, path.name)
  if found.sha256 != said.sha256:
    raise UserError(
      f"{path} was changed after the curation run that wrote it:"
      f" {NAME} beside it says sha256 {said.sha256[:12]}..., it has"
      f" {found.sha256[:12]}... Run the curation again, or move the file to"
      " another folder to use it without a manifest."
    )
  return made


def summary(made: Manifest, path: str | os.PathLike) -> dict[str, Any]:
  """What a training run records of a manifest, in its `run.json`.

  Args:
    made: from `beside`.
    path: of the data file.
  """
  return {
    "method": made.method,
    "fingerprint": made.fingerprint(),
    "sha256": made.outputs[pathlib.Path(path).name].sha256,
    "inputs": {
      role: [f.sha256 for f in files] for role, files in made.inputs.items()
    },
    "models": {role: model["model"] for role, model in made.models.items()},
  }


def recorded(
  paths: Sequence[str | os.PathLike],
) -> dict[str, dict[str, Any]]:
  """`summary` of each data file that a curation run wrote, by the file's name.

  Raises:
    UserError: as `beside`.
  """
  out = {}
  for path in paths:
    made = beside(path)
    if made is not None:
      out[pathlib.Path(path).name] = summary(made, path)
  return out


def _listed(paths) -> list[str | os.PathLike]:
  return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
