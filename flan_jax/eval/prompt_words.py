"""What a soft prompt is like: the tokens near its vectors, other prompts.

Lester et al. 2021 (arXiv:2104.08691, section 7) look at the nearest tokens of
each vector; Vu et al. 2022 (SPoT, arXiv:2110.07904, section 4.1) at how like
the prompts of two tasks are.

P positions of a prompt, D model, V vocabulary, K neighbours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from flan_jax.errors import UserError
from flan_jax.eval import files


def nearest_tokens(
  vectors_PD: Float[np.ndarray, "P D"],
  embedding_VD: Float[np.ndarray, "V D"],
  *,
  count: int = 5,
) -> list[list[tuple[int, float]]]:
  """For each vector the tokens of the highest cosine, and that cosine.

  >>> table = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
  >>> nearest_tokens(np.array([[0.0, 0.5]]), table, count=1)
  [[(1, 1.0)]]

  Args:
    vectors_PD: the prompt.
    embedding_VD: of the model that it is read by.
    count: K, tokens a vector.

  Raises:
    UserError: the widths differ.
  """
  if vectors_PD.shape[1] != embedding_VD.shape[1]:
    raise UserError(
      f"the prompt's vectors have {vectors_PD.shape[1]} numbers, the"
      f" embedding's {embedding_VD.shape[1]}: give the model that it was"
      " trained before."
    )
  cosine_PV = _unit(vectors_PD) @ _unit(embedding_VD).T
  # Of equal ones the lower id comes first.
  order_PK = np.argsort(-cosine_PV, axis=1, kind="stable")[:, :count]
  return [
    [(int(i), round(float(row[i]), 4)) for i in ids]
    for ids, row in zip(order_PK, cosine_PV, strict=True)
  ]


def similarity(
  prompts: Mapping[str, Float[np.ndarray, "P D"]],
) -> dict[tuple[str, str], float]:
  """The cosine of every two prompts' mean vectors (SPoT's first measure).

  >>> similarity({"cb": np.eye(2), "rte": np.ones((1, 2))})
  {('cb', 'rte'): 1.0}

  Prompts of different models have nothing to do with each other: compare
  those of one.
  """
  means = {
    name: _unit(x.mean(0, keepdims=True))[0] for name, x in prompts.items()
  }
  names = list(prompts)
  return {
    (a, b): round(float(means[a] @ means[b]), 4)
    for i, a in enumerate(names)
    for b in names[i + 1 :]
  }


def words(
  nearest: Sequence[Sequence[tuple[int, float]]], vocabulary: Any
) -> list[list[dict[str, Any]]]:
  """The neighbours with their texts, as JSON."""
  return [
    [{"id": i, "text": vocabulary.decode([i]), "cosine": c} for i, c in near]
    for near in nearest
  ]


def markdown(found: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
  """A table of what `words` gives, a line a position."""
  rows = [
    [
      str(place),
      ", ".join(f"{_shown(w['text'])} {w['cosine']:.2f}" for w in near),
    ]
    for place, near in enumerate(found)
  ]
  return files.markdown_table(
    ["position", "nearest tokens (cosine)"], rows, text_columns=2
  )


def similarity_markdown(found: Mapping[tuple[str, str], float]) -> list[str]:
  """A table of what `similarity` gives."""
  rows = [[a, b, f"{value:.3f}"] for (a, b), value in found.items()]
  return files.markdown_table(
    ["prompt", "prompt", "cosine of means"], rows, text_columns=2
  )


def _shown(text) -> str:
  """A token's text, its white space to be seen, as Markdown's code."""
  said = repr(text)[1:-1].replace("`", "'").replace("|", "\\|")
  return f"`{said or ' '}`"


def _unit(x):
  x = np.asarray(x, np.float32)
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
