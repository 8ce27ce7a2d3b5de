"""What a run was: command, configuration, versions, data; and whose folder.

A `MODEL_DIR` belongs to one configuration. `claim` writes it down on the first
start and refuses a later start that differs in anything but what may change
between two starts of one run.
"""

import ast
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import config as config_lib
from flan_jax.data import remote
from flan_jax.errors import UserError

# May differ between two starts of one run: where it is, how long it goes on,
# how often it reports, what it lives through.
RESUMABLE = (
  "MODEL_DIR",
  "OUTPUT_DIR",
  "TRAIN_STEPS",
  "LOG_PERIOD",
  "CHECKPOINTS_TO_KEEP",
  "CHECKPOINT_KEEP_PERIOD",
  "GRACE_SECONDS",
  "MAX_FAILED_SAVES",
  "MAX_NONFINITE_STEPS",
  "MAX_ROLLBACKS",
  "INPUT_STALL_SECONDS",
  "PROCESS_STALL_SECONDS",
  "RESUME_CHANGED",
  "MESH",
  "AXIS_RULES",
  "TOPOLOGY",
  "PROFILE_STEPS",
  "COMPILATION_CACHE",
  # What it holds is in the record's data.
  "CACHE_DIR",
  "CACHE_WORKERS",
)
_PACKAGES = (
  "flan_jax",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "seqio",
  "tensorflow",
  "tensorflow-datasets",
  "numpy",
  "sentencepiece",
)


@dataclasses.dataclass(frozen=True)
class Record:
  """Everything that is written beside a run, as JSON."""

  name: str
  command: tuple[str, ...]
  config: str
  overrides: tuple[str, ...]
  versions: Mapping[str, str]
  data: Mapping[str, Any]
  # What later starts were allowed to change, each as its differences.
  changes: tuple[tuple[str, ...], ...] = ()
  # A job of several runs begins each from a checkpoint of its own.
  began_from: str | None = None

  def option(self, name: str, default: Any = None) -> Any:
    """A literal value of the configuration, such as of PROMPT_PREFIX."""
    for line in self.config.splitlines():
      key, equals, value = line.partition(" = ")
      if equals and key == name:
        try:
          return ast.literal_eval(value)
        except (ValueError, SyntaxError):
          return default
    return default

  def fingerprint(self) -> str:
    """Eight hex digits of the configuration and the data."""
    return config_lib.fingerprint(self._identity())

  def _identity(self) -> str:
    lines = [
      line
      for line in self.config.splitlines()
      if line.split(" = ", 1)[0] not in RESUMABLE
    ]
    return "\n".join(lines) + json.dumps(self.data, sort_keys=True)


def make(data: Mapping[str, Any], began_from: str | None = None) -> Record:
  """The record of the running job, or of a plain Python call.

  Args:
    data: `source` and, per task, `fingerprint`, `rows`, `rate`.
    began_from: the checkpoint whose parameters the run begins with.
  """
  current = config_lib.current()
  text, overrides, name, command = "", (), "train", ()
  if current is not None:
    text, overrides = current[0].text, current[0].overrides
    name, command = current[0].name, current[1]
  return Record(
    name=name,
    command=tuple(command),
    config=text,
    overrides=tuple(overrides),
    versions=_versions(),
    data=data,
    began_from=began_from,
  )


def beside(checkpoint: str | os.PathLike) -> Record | None:
  """The record of the run that a checkpoint is of; None: there is none.

  >>> beside("runs/mine/checkpoints/checkpoint_200").data["train"]["mixture"]
  ... # doctest: +SKIP
  'flan_holdout_nli_train'

  Args:
    checkpoint: a MODEL_DIR, its `checkpoints` or one folder in that.

  Raises:
    UserError: there is a record that cannot be read.
  """
  path = remote.as_path(checkpoint)
  for folder in (path, *path.parents[:2]):
    file = folder / "run.json"
    if not file.is_file():
      continue
    try:
      value = json.loads(file.read_text())
      return Record(
        **{
          **value,
          "command": tuple(value["command"]),
          "overrides": tuple(value["overrides"]),
          "changes": tuple(map(tuple, value.get("changes", ()))),
        }
      )
    except (OSError, ValueError, TypeError, KeyError) as e:
      raise UserError(
        f"{file}, the record of the checkpoint's run, cannot be read ({e!r});"
        " copy the checkpoint_N folder elsewhere to use it without."
      ) from None
  return None


def lineage(checkpoint: str | os.PathLike | None) -> list[Record]:
  """The record of a checkpoint's run, and of the runs that it began from.

  The latest one first; it ends where a checkpoint is of no run of ours, or is
  no longer there; [] for None.
  """
  out: list[Record] = []
  seen = set()
  while checkpoint is not None:
    path = remote.as_path(checkpoint)
    record = beside(path)
    if record is None or path in seen:
      break
    seen.add(path)
    out.append(record)
    # Records of earlier versions have the option alone.
    checkpoint = record.began_from or record.option("INITIAL_CHECKPOINT_PATH")
  return out


def choose_directory(
  model_dir: str | None,
  record: Record,
  *,
  buckets: bool = False,
  option: str = "MODEL_DIR",
) -> remote.Path:
  """`model_dir`, or `runs/<name>-<fingerprint>` when it is None.

  The fingerprint makes the same command find its run again and another
  configuration, or other data, get a folder of its own.

  Args:
    model_dir: as it was given.
    record: of the run.
    buckets: whether it may be in one of Cloud Storage.
    option: what messages call it.

  Raises:
    UserError: it is in a bucket and may not be.
  """
  if model_dir is None:
    return pathlib.Path("runs", f"{record.name}-{record.fingerprint()}")
  if buckets:
    return remote.run_folder(model_dir)
  remote.check_folder(model_dir, option)
  return pathlib.Path(model_dir)


def claim(
  directory: pathlib.Path,
  record: Record,
  option: str = "MODEL_DIR",
  resume_changed: bool = False,
  home: remote.Path | None = None,
) -> tuple[str, ...] | None:
  """Writes `run.json` into `directory`, or checks the one that is there.

  Args:
    directory: made if it is not there.
    record: of the run.
    option: what messages call the option that names the directory.
    resume_changed: go on with the run although it differs, and write the
      differences down.
    home: the run's folder in messages; None: `directory`.

  Returns:
    None where the directory was free; else the differences from the run it
    holds, of which there are none but with `resume_changed`.

  Raises:
    UserError: the directory cannot be written, or holds another run.
  """
  path = directory / "run.json"
  try:
    directory.mkdir(parents=True, exist_ok=True)
    if path.exists():
      old = json.loads(path.read_text())
      changed = _changed(old, record)
      if changed and not resume_changed:
        raise UserError(_another_run(home or directory, changed, option))
      if changed:
        earlier = tuple(map(tuple, old.get("changes", ())))
        record = dataclasses.replace(record, changes=(*earlier, changed))
        _write(path, record)
      return changed
    _write(path, record)
  except json.JSONDecodeError as e:
    raise UserError(
      f"{path} is damaged ({e}); give another {option} or remove it."
    ) from None
  except OSError as e:
    raise UserError(
      f"{option} {str(directory)!r} cannot be written: {e.strerror}. Give a"
      f" folder you may write to: --gin.{option}=..."
    ) from None
  return None


def _write(path: pathlib.Path, record: Record):
  draft = path.with_suffix(".tmp")
  draft.write_text(json.dumps(dataclasses.asdict(record), indent=2))
  os.replace(draft, path)


# Bindings that records of earlier versions do not have.
_LATER = (
  "train.train.survival",
  "train.train.cached_input",
  "evaluate.evaluate.layout",
  "evaluate_benchmarks.evaluate_benchmarks.layout",
  "evaluate_response_ranking.evaluate_response_ranking.layout",
  "evaluate_super_ni.evaluate_super_ni.layout",
)


def _changed(old: Mapping, record: Record) -> tuple[str, ...]:
  # A macro that an earlier version did not have came with its binding.
  lines = (line.partition(" = ") for line in record.config.splitlines())
  ignored = {
    name
    for name, _, value in lines
    if value.startswith("%") and value[1:] in RESUMABLE
  }
  return (
    *config_lib.differences(
      old["config"], record.config, (*RESUMABLE, *_LATER, *ignored)
    ),
    *_data_changes(old["data"], record.data),
  )


def _another_run(directory, changed: Sequence[str], option: str) -> str:
  shown = "\n  ".join(changed[:12])
  more = f"\n  and {len(changed) - 12} more" if len(changed) > 12 else ""
  anyway = (
    " To go on with it all the same, its earlier steps staying what they are:"
    " --gin.RESUME_CHANGED=True."
    if option == "MODEL_DIR"
    else ""
  )
  return (
    f"{option} {str(directory)!r} holds another run; it differs in\n"
    f"  {shown}{more}\nGive another --gin.{option}, or leave {option} out"
    f" and a folder of its own is made.{anyway}"
  )


def _data_changes(old: Mapping, new: Mapping) -> Sequence[str]:
  old = _flat(json.loads(json.dumps(old)))
  new = _flat(json.loads(json.dumps(new)))
  return [
    f"data {key}: {old.get(key, '(none)')} -> {new.get(key, '(none)')}"
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key)
  ]


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
  """Values by their path, `train.tasks.flan_sst2.rate`."""
  if not isinstance(tree, Mapping) or not tree:
    return {name: tree}
  out = {}
  for key, value in tree.items():
    out |= _flat(value, f"{name}.{key}" if name else key)
  return out


def _versions() -> dict[str, str]:
  out = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return out
