"""The section of a run's page about its soft prompt."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flan_jax.page.markup import table, text


def shown(prompt: Mapping[str, Sequence[Any]]) -> Iterator[str]:
  """A table for each side: the tokens nearest to each vector.

  >>> near = [[{"id": 3, "text": "yes", "cosine": 0.5}]]
  >>> [part[:30] for part in shown({"encoder": near})]
  ['<h2>Soft prompt, encoder</h2>', "<p class='note'>By the cosine "]

  Args:
    prompt: side -> for each position what `prompt_words.words` gives; empty
      without a soft prompt.
  """
  for side, found in prompt.items():
    yield f"<h2>Soft prompt, {text(side)}</h2>"
    rows = []
    for place, near in enumerate(found):
      said = ", ".join(f"{w['text']!r} {w['cosine']:.2f}" for w in near)
      rows.append(f"<tr><td>{place}</td><td>{text(said)}</td></tr>")
    yield table(
      ("position", "nearest tokens"),
      rows,
      2,
      "By the cosine of a vector and the embeddings of the vocabulary.",
    )
