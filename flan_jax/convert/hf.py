"""Hugging Face folders: config.json and safetensors, read and written.

A family's names and fields are in `tables/`. Heads of queries and keys are as
RoPE turns them here (a head's first half with its second), so no tensor is
permuted; torch's Linear has [out, in] and is transposed.
"""

import json
import logging
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from flan_jax.convert import drafts, hf_tokenizer, shapes, shards, tables
from flan_jax.convert.tables.family import Family, Row, match, read_config
from flan_jax.convert.tables.transforms import TRANSFORMS
from flan_jax.errors import UserError

CONFIG = "config.json"
GENERATION = "generation_config.json"
# What config.json says beside our config, kept in an export.
DETAILS = (
  "model_type",
  "max_position_embeddings",
  "bos_token_id",
  "eos_token_id",
  "pad_token_id",
  "decoder_start_token_id",
  "initializer_range",
)
# Bytes of one file of an export.
SHARD_BYTES = 5 * 2**30
_SHOWN = 20
_log = logging.getLogger(__name__)


class HfSource:
  """A Hugging Face folder as a `source.TensorSource`.

      source = HfSource("Llama-3.2-1B")
      source.config.num_kv_heads                      # 8
      source.read("decoder/layers_0/mlp/wo/kernel")   # bfloat16[8192, 2048]

  Opening it reads config.json and the headers of the files, and compares every
  name and shape with the model's; only tensors stored twice are read. Of a
  Gemma 3 that reads images too, this is the language model (a warning says so).

  Attributes:
    family: its table.
    details: what config.json says beside `config`, for `write_hf`.

  Raises:
    UserError: a file is missing or cut short (named), an architecture or
      option that we do not know (named), pickled weights, tensors that do not
      fit config.json (all of them listed), or a tokenizer with more tokens
      than the embedding has rows.
  """

  format = "hf"

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path).absolute()
    if self.path.suffix == ".bin":
      shards.refuse_pickle(self.path.parent, self.path.name)
    if not self.path.is_dir():
      raise UserError(
        f"{self.path} is one file; give its folder, which has the"
        f" {CONFIG} that says what model it is."
      )
    where = self.path / CONFIG
    if not where.is_file():
      raise UserError(
        f"{self.path} has no {CONFIG}, so its tensors are of no known model."
        " Fetch the whole checkpoint (a folder of adapters alone has to be"
        " merged into its model first)."
      )
    said, within = tables.language_part(shards.read_json(where), str(where))
    self.family: Family = tables.family_of(said, str(where))
    self.config = read_config(self.family, said, str(where))
    self.details = {name: said[name] for name in DETAILS if name in said}
    self._shards = shards.open_shards(self.path)
    if within is not None:
      self._shards, left = self._shards.within(within.prefixes, within.rest)
      _log.warning(
        "%s is a %s; its language model is read, and %d tensors of the rest"
        " are not.",
        self.path,
        within.architecture,
        len(left),
      )
    self._rows = _placed(
      self.path, self.family, self._shards, shapes.parameter_shapes(self.config)
    )
    self.shapes = {
      ours: jax.ShapeDtypeStruct(
        TRANSFORMS[row.transform].shape(self._shards.shapes[row.theirs].shape),
        self._shards.shapes[row.theirs].dtype,
      )
      for ours, row in self._rows.items()
    }
    self.tokenizer_files = drafts.tokenizer_files(self.path)
    hf_tokenizer.check_size(
      self.tokenizer_files, self.config.vocab_size, self.family.outside
    )

  def read(self, name: str) -> np.ndarray:
    """One tensor in our layout (a view of the bytes read), type as stored."""
    row = self._rows[name]
    return TRANSFORMS[row.transform].to_ours(self._shards.read(row.theirs))


def names(family: Family, ours: Iterable[str]) -> dict[str, Row]:
  """The row of every tensor, its names filled in.

  >>> row = names(tables.FAMILIES["olmo"], ["decoder/layers_3/mlp/wo/kernel"])
  >>> row["decoder/layers_3/mlp/wo/kernel"].theirs
  'model.layers.3.mlp.down_proj.weight'

  Raises:
    ValueError: a name that the table has not.
  """
  found = {}
  for name in ours:
    for row in family.rows:
      layer = match(row.ours, name)
      if layer is not None:
        found[name] = Row(
          name,
          row.theirs.replace("{i}", layer),
          row.transform,
          tuple(copy.replace("{i}", layer) for copy in row.copies),
        )
        break
    else:
      raise ValueError(f"{family.model_type}'s table has no row for {name}.")
  return found


def _placed(path, family, files, expected):
  """Each of our tensors' row; everything in the files has its place."""
  has = files.shapes
  rows = names(family, expected)
  used = {row.theirs for row in rows.values()}
  faults = []
  for ours, row in rows.items():
    copies = [c for c in row.copies if c in has and c not in used]
    if row.theirs not in has and copies:
      # Only under the other name.
      rows[ours] = row = Row(ours, copies[0], row.transform)
    if row.theirs not in has:
      faults.append(f"missing: {row.theirs}{_hint(ours)}")
      continue
    for copy in copies:
      if copy != row.theirs and files.differ(copy, row.theirs):
        raise UserError(
          f"{path}: {CONFIG} says that {copy} and {row.theirs} are one tensor"
          " (tie_word_embeddings), but they differ. Set tie_word_embeddings"
          " to false to keep both."
        )
    used |= {row.theirs, *copies}
    transform = TRANSFORMS[row.transform]
    shape = transform.shape(expected[ours].shape)
    if has[row.theirs].shape != shape:
      faults.append(
        f"reshaped: {row.theirs} is {list(has[row.theirs].shape)}, {CONFIG}"
        f" says {list(shape)}"
      )
  for name in sorted(set(has) - used):
    if all(match(buffer, name) is None for buffer in family.buffers):
      faults.append(f"extra: {name}")
  if faults:
    title = f"{path}: the tensors do not fit {CONFIG}:"
    raise UserError(_listed(title, faults))
  return rows


def _hint(ours):
  if ours != "decoder/logits_dense/kernel":
    return ""
  return f" (its {CONFIG} says tie_word_embeddings false)"


def _listed(title, faults):
  more = len(faults) - _SHOWN
  lines = faults[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
  return "\n  ".join([title, *lines])


def write_hf(
  folder: str | pathlib.Path,
  config: Any,
  names_and_arrays: Iterable[tuple[str, np.ndarray]],
  dtype: str = "float32",
  tokenizer_files: Iterable[pathlib.Path] = (),
  max_shard_bytes: int = SHARD_BYTES,
  overwrite: bool = False,
  details: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """A folder that transformers loads, written one tensor at a time.

      source = open_source("checkpoint_1000")
      write_hf("export", source.config,
               ((name, source.read(name)) for name in source.shapes),
               dtype="bfloat16")

  Args:
    folder: to be made. It appears when it is whole; after an error nothing is
      left of it.
    config: the model's T5Config or DecoderConfig.
    names_and_arrays: each parameter once, in any order, under our unscanned
      names and in our layout. Each is written and let go before the next.
    dtype: "float32", "bfloat16" or "float16" of the files.
    tokenizer_files: copied beside the weights. generation_config.json among
      them is copied too; otherwise it is written from what the tokenizer, or
      `details`, says of EOS.
    max_shard_bytes: of one file.
    overwrite: whether a folder that exists is replaced, at the end.
    details: what config.json shall say beside `config`, as an HfSource has it
      (DETAILS): ids of special tokens, the longest context, and the family
      where several have such a model.

  Returns:
    the folder.

  Raises:
    UserError: the folder exists, no family has such a model, the tokenizer has
      more tokens than the embedding rows, tensors are missing, unexpected or
      of another shape, or numbers do not fit float16.
  """
  folder = pathlib.Path(folder).absolute()
  known = [d.name for d in shards.DTYPES.values()]
  if dtype not in known:
    raise UserError(f"dtype is {dtype!r}; files have {', '.join(known)}.")
  if max_shard_bytes < 1:
    raise UserError(
      f"max_shard_bytes is {max_shard_bytes}; it must be 1 or more."
    )
  stray = sorted(set(details or ()) - set(DETAILS))
  if stray:
    raise UserError(
      f"details has {', '.join(stray)}, which is no detail of {CONFIG}; known"
      f" are {', '.join(DETAILS)}."
    )
  details = dict(details or {})
  family, said = tables.written_by(config, details.pop("model_type", None))
  tokenizer_files = tuple(map(pathlib.Path, tokenizer_files))
  hf_tokenizer.check_size(tokenizer_files, config.vocab_size, family.outside)
  ids = hf_tokenizer.special_ids(tokenizer_files)
  # transformers has defaults for ids that nobody says. A tokenizer that is
  # copied stands over the checkpoint the model came from.
  unsaid = dict.fromkeys(_TOKENS[:3]) if family.causal else {}
  stored = {"dtype": dtype, "torch_dtype": dtype}
  said = unsaid | details | stored | said | ids
  expected = shapes.parameter_shapes(config)
  rows = names(family, expected)
  with drafts.folder(folder, overwrite=overwrite) as draft:
    writer = shards.ShardWriter(
      draft,
      {
        row.theirs: TRANSFORMS[row.transform].shape(expected[ours].shape)
        for ours, row in rows.items()
      },
      dtype,
      max_shard_bytes,
    )
    _write_all(writer, rows, expected, names_and_arrays)
    _dump(draft / CONFIG, said)
    drafts.copy(tokenizer_files, draft)
    if not (draft / GENERATION).exists():
      tokens = {k: said[k] for k in _TOKENS if said.get(k) is not None}
      if "eos_token_id" in tokens:
        _dump(draft / GENERATION, tokens)
      else:
        _log.warning(
          "%s has no %s: neither a tokenizer nor details say which token ends"
          " a text.",
          folder,
          GENERATION,
        )
  return folder


_TOKENS = (
  "bos_token_id",
  "eos_token_id",
  "pad_token_id",
  "decoder_start_token_id",
)


def _write_all(writer, rows, expected, names_and_arrays):
  left = dict.fromkeys(rows)
  faults = []
  for name, array in names_and_arrays:
    if name not in left:
      again = "twice" if name in rows else "extra"
      faults.append(f"{again}: {name}")
      continue
    del left[name]
    if tuple(array.shape) != expected[name].shape:
      faults.append(
        f"reshaped: {name} is {list(array.shape)}, the config says"
        f" {list(expected[name].shape)}"
      )
      continue
    row = rows[name]
    transform = TRANSFORMS[row.transform]
    writer.write(row.theirs, transform.to_theirs(np.asarray(array)))
  faults += [f"missing: {name}" for name in left]
  if faults:
    raise UserError(_listed("The tensors do not fit the config:", faults))


def _dump(path, value):
  path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
