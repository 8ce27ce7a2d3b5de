"""What a soft prompt is before the first step.

Lester et al. 2021 (arXiv:2104.08691, section 3.1) compare random numbers,
vocabulary and class labels; Vu et al. 2022 (SPoT, arXiv:2110.07904) begin with
another task's prompt.

P positions of a prompt, D model, V vocabulary.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flan_jax.errors import UserError, check_known

# The ids that vocabularies begin with are their most frequent tokens.
MOST_FREQUENT = 5_000
# Uniform between minus this and this, as in the paper.
SCALE = 0.5
KINDS = ("random", "vocabulary", "class_labels", "string", "saved")


@dataclasses.dataclass(frozen=True)
class Start:
  """How the vectors are chosen; hashable.

  Attributes:
    kind: "random": uniform from -0.5 to 0.5. "vocabulary": embeddings of
      tokens drawn from the 5,000 most frequent. "class_labels": a position for
      each label, the mean of the embeddings of its tokens. "string": the
      embeddings of a text's tokens. "saved": a prompt that was trained, for
      this task or another. Positions that labels or a text leave are filled
      as by "vocabulary".
    tokens: of each position that labels or a text fill, the ids whose mean it
      is.
    path: where the saved prompt is.
  """

  kind: str = "random"
  tokens: tuple[tuple[int, ...], ...] = ()
  path: str | None = None


RANDOM = Start()


def of(
  kind: str,
  *,
  length: int,
  vocabulary: Any = None,
  class_labels: tuple[str, ...] | None = None,
  text: str | None = None,
  path: str | None = None,
) -> Start:
  """A `Start` from what a user writes.

  >>> class Letters:
  ...   def encode(self, text): return [ord(c) for c in text]
  >>> of("class_labels", length=5, vocabulary=Letters(),
  ...    class_labels=("no", "a")).tokens
  ((110, 111), (97,))

  Args:
    kind: one of `KINDS`.
    length: positions of the prompt, P.
    vocabulary: turns texts into ids; needed with labels and a text.
    class_labels: for "class_labels".
    text: for "string".
    path: for "saved".

  Raises:
    UserError: an unknown kind; what a kind needs is missing, or what it does
      not read is given; more labels or tokens than positions; a label or text
      without a token.
  """
  check_known("PROMPT_INIT", kind, KINDS)
  given = {
    "class_labels": ("PROMPT_CLASS_LABELS", class_labels),
    "string": ("PROMPT_TEXT", text),
    "saved": ("PROMPT_PATH", path),
  }
  for reads, (option, value) in given.items():
    if reads == kind and not value:
      raise UserError(
        f"PROMPT_INIT = {kind!r} needs {option}: say it, or choose another"
        " PROMPT_INIT."
      )
    if reads != kind and value:
      raise UserError(
        f"{option} = {value!r} has no effect with PROMPT_INIT = {kind!r}:"
        f" leave it out, or set PROMPT_INIT = {reads!r}."
      )
  if kind == "saved":
    return Start(kind, path=str(path))
  if kind not in ("class_labels", "string"):
    return Start(kind)
  texts = class_labels if kind == "class_labels" else (text,)
  tokens = [tuple(int(i) for i in vocabulary.encode(t)) for t in texts]
  for one, ids in zip(texts, tokens, strict=True):
    if not ids:
      raise UserError(
        f"{given[kind][0]}: {one!r} has no token in this vocabulary; leave it"
        " out."
      )
  if kind == "string":
    tokens = [(i,) for i in tokens[0]]
  if len(tokens) > length:
    what = "class labels" if kind == "class_labels" else "tokens"
    raise UserError(
      f"{given[kind][0]} has {len(tokens)} {what}, more than the {length}"
      f" positions of the prompt: set PROMPT_LENGTH = {len(tokens)} or more, or"
      " give fewer."
    )
  return Start(kind, tokens=tuple(tokens))


def vectors(
  start: Start,
  rng: Array,
  *,
  embedding_VD: Float[Array, "V D"],
  length: int,
  saved: Any = None,
  side: str = "encoder",
) -> Float[Array, "P D"]:
  """The vectors of one prompt, float32.

  >>> table = jnp.arange(8.0).reshape(4, 2)
  >>> start = Start("class_labels", tokens=((0, 1), (3,)))
  >>> vectors(start, jax.random.key(0), embedding_VD=table, length=2).tolist()
  [[1.0, 2.0], [6.0, 7.0]]

  Args:
    start: how.
    rng: for what is drawn.
    embedding_VD: of the base model.
    length: P.
    saved: [P, D], the saved prompt of this side, for "saved".
    side: for messages.

  Raises:
    UserError: a saved prompt of another length or width, both named, or none
      for this side.
  """
  V, D = embedding_VD.shape
  if start.kind == "random":
    return jax.random.uniform(rng, (length, D), minval=-SCALE, maxval=SCALE)
  if start.kind == "saved":
    return _saved(start, saved, length, D, side)
  # Without an id twice, where there are enough.
  most = min(MOST_FREQUENT, V)
  drawn_P = jax.random.choice(rng, most, (length,), replace=most < length)
  rows = jnp.take(embedding_VD, drawn_P, axis=0).astype(jnp.float32)
  for place, ids in enumerate(start.tokens):
    own = jnp.take(embedding_VD, np.array(ids), axis=0).astype(jnp.float32)
    rows = rows.at[place].set(own.mean(axis=0))
  return rows


def _saved(start, saved, length, width, side):
  if saved is None:
    raise UserError(
      f"PROMPT_PATH={start.path} holds no prompt of the {side}; set"
      " PROMPT_SIDE to where it was trained."
    )
  saved = jnp.asarray(saved, jnp.float32)
  if saved.ndim != 2 or saved.shape != (length, width):
    raise UserError(
      f"PROMPT_PATH={start.path} holds a prompt of shape {list(saved.shape)}"
      f" (positions, width); this model reads [{length}, {width}]. The width is"
      " the model's: take a prompt of the same model. The length is"
      f" PROMPT_LENGTH: set it to {saved.shape[0] if saved.ndim else 0}."
    )
  return saved
