"""Soft prompts on disk: T5X's arrays, Hugging Face's folders, and our runs.

What a file does not say (which side, which model) is not made up: a `.npy` has
a shape alone.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.errors import UserError
from flan_jax.models.soft_prompt import SoftPrompt


def read(path: str | pathlib.Path, mark: str | None = None) -> dict[str, Any]:
  """A saved prompt of each side, [P, D], float32.

      read("runs/prompt_tuning_rte-1a2b3c4d")["encoder"].shape    # (10, 512)
      read("prompt.npy")

  Args:
    path: a `.npy` (or a file of T5X's numpy_checkpoints), a folder of PEFT, a
      checkpoint of T5X's prompt tuning, or a run or checkpoint of ours.
    mark: fingerprint of the base that it is to stand before; None: any. What
      others wrote does not say what it was trained on, and is not compared.

  Raises:
    UserError: nothing is there, or no prompt; it was trained on another base,
      both named.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UserError(f"PROMPT_PATH={path} does not exist.")
  if path.is_file():
    vectors = read_numpy(path)
    return {"encoder": vectors, "decoder": vectors}
  if (path / "adapter_config.json").is_file():
    return _read_peft(path, mark)
  return _read_run(path, mark)


def pool(
  base: Any,
  paths: Mapping[str, str | pathlib.Path],
  *,
  side: str | None = None,
  mark: str | None = None,
) -> tuple[SoftPrompt, dict[str, Any]]:
  """Several saved prompts before one model: each row of a batch names its own.

      model, own = pool(base, {"cb": "runs/cb", "rte": "rte.npy"})
      params = {**base_params, model.key: own}
      inputs = model.chosen(inputs_BS, [model.prompt_id("rte"), ...])
      decoding.decode(model, params, inputs, config)

  Args:
    base: `EncoderDecoder` or `DecoderOnly`.
    paths: name -> what `read` reads.
    side: as of `SoftPrompt`.
    mark: fingerprint of the base's parameters, compared with the runs'.

  Returns:
    The model, and its tree under `soft_prompt`.

  Raises:
    UserError: no prompt; prompts of other lengths, or of another width than
      the model's, all named; what `read` raises.
  """
  if not paths:
    raise UserError("a pool needs at least one prompt; give name -> path.")
  found = {name: read(path, mark) for name, path in paths.items()}
  plain = SoftPrompt(base, 1, tuple(paths), side)
  own: dict[str, Any] = {}
  for one in plain.sides:
    lacking = [n for n, sides in found.items() if one not in sides]
    if lacking:
      raise UserError(
        f"{paths[lacking[0]]} holds no prompt of the {one}; set side to where"
        " the prompts were trained."
      )
    shapes = {n: sides[one].shape for n, sides in found.items()}
    width = base.config.emb_dim
    if len(set(shapes.values())) > 1 or {s[1] for s in shapes.values()} != {
      width
    }:
      said = ", ".join(f"{n} {list(s)}" for n, s in shapes.items())
      raise UserError(
        f"prompts of a pool have one length and the model's width, {width};"
        f" these are {said}."
      )
    own[one] = {"prompt": np.concatenate([x[one] for x in found.values()])}
  length = next(iter(found.values()))[plain.sides[0]].shape[0]
  return SoftPrompt(base, length, tuple(paths), side), own


def read_numpy(path: str | pathlib.Path) -> np.ndarray:
  """The prompt in a `.npy` file, [P, D], float32.

  Raises:
    UserError: it is no array of numbers with two dimensions.
  """
  try:
    array = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise UserError(
      f"{path} cannot be read as a numpy array: {error}."
    ) from error
  if not isinstance(array, np.ndarray):
    raise UserError(f"{path} holds several arrays; a prompt is one, [P, D].")
  if array.ndim != 2 or array.dtype.kind != "f":
    raise UserError(
      f"{path} is an array of {array.dtype} and shape {list(array.shape)}; a"
      " prompt has two dimensions, positions and the model's width."
    )
  return array.astype(np.float32)


def write_numpy(
  path: str | pathlib.Path, vectors_PD: np.ndarray, *, overwrite: bool = False
) -> pathlib.Path:
  """Writes a prompt as T5X's prompt tuning reads it (PROMPT_FILE).

  Raises:
    UserError: the file is there and `overwrite` is not set, or it cannot be
      written.
  """
  path = pathlib.Path(path)
  if path.exists() and not overwrite:
    raise UserError(
      f"{path} exists; choose another name, or set OVERWRITE = True."
    )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
      np.save(file, np.asarray(vectors_PD, np.float32), allow_pickle=False)
  except OSError as error:
    raise UserError(
      f"{path} cannot be written: {error.strerror or error}."
    ) from error
  return path


def write_source(
  source: Any, path: str | pathlib.Path, *, overwrite: bool = False
) -> pathlib.Path:
  """Writes the prompt of a checkpoint as a `.npy`.

  Raises:
    UserError: it has no soft prompt, several, or one on each side; see
      `write_numpy`.
  """
  described = getattr(source, "adapter", None)
  if described is None or described["kind"] != "soft_prompt":
    raise UserError(
      f"{source.path} holds no soft prompt; OUTPUT_FORMAT='npy' writes such a"
      " one. Give the folder of a run with ADAPTER ="
      " @prompt_tuning.PromptTuning()."
    )
  found = vectors_of(source)
  if len(found) > 1:
    raise UserError(
      f"{source.path} holds a prompt of the encoder and one of the decoder, and"
      " a .npy is one array: train with PROMPT_SIDE = 'encoder' for it."
    )
  (vectors_PD,) = found.values()
  return write_numpy(path, vectors_PD, overwrite=overwrite)


def _read_peft(path, mark):
  # Not with the module: `peft` reads sources, which read prompts.
  from flan_jax.convert import peft, peft_prompt

  folder = peft.read_folder(path)
  kind = folder.config["peft_type"]
  if kind != "PROMPT_TUNING":
    raise UserError(
      f"PROMPT_PATH={path} is of the peft_type {kind!r}, not 'PROMPT_TUNING'."
    )
  if None not in (mark, folder.fingerprint) and mark != folder.fingerprint:
    raise UserError(
      f"PROMPT_PATH={path} was trained before a model with the fingerprint"
      f" {folder.fingerprint}; this run's base has {mark}. A prompt fits the"
      " model it was trained before: take one of the same model."
    )
  return dict.fromkeys(("encoder", "decoder"), peft_prompt.vectors(folder))


def _read_run(path, mark):
  from flan_jax.convert import part
  from flan_jax.convert.source import open_source

  source = open_source(path)
  described = getattr(source, "adapter", None)
  if described is None:
    raise UserError(f"PROMPT_PATH={path} holds no soft prompt.")
  if described["kind"] != "soft_prompt":
    raise UserError(
      f"PROMPT_PATH={path} holds {described['kind']}, not a soft prompt."
    )
  known = isinstance(source, part.PartSource)
  if known and mark is not None and mark != source.fingerprint:
    raise UserError(
      f"PROMPT_PATH={path} was trained before {source.base.path} (fingerprint"
      f" {source.fingerprint}); this run's base has {mark}. A prompt fits the"
      " model it was trained before: take one of the same model."
    )
  return vectors_of(source)


def vectors_of(source: Any) -> dict[str, np.ndarray]:
  """The prompts of a checkpoint as its model reads them: [P, D] a side.

  A reparameterisation is folded in.

  Raises:
    UserError: it holds several prompts.
  """
  described = source.adapter
  if len(described["names"]) > 1:
    raise UserError(
      f"{source.path} holds {len(described['names'])} prompts"
      f" ({', '.join(described['names'])}); one is needed here."
    )
  out = {}
  for side in ("encoder", "decoder"):
    name = f"soft_prompt/{side}/prompt"
    if name not in source.shapes:
      continue
    x = source.read(name).astype(np.float32)
    if described["reparameterisation"]:
      scope = "soft_prompt/reparameterisation"
      wi, wo = (source.read(f"{scope}/{w}/kernel") for w in ("wi", "wo"))
      x = x + np.tanh(x @ wi) @ wo
    out[side] = x
  return out
