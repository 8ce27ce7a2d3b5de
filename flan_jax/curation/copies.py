"""Near-duplicate rows as a filter: the earlier one stays."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flan_jax.curation import minhash, overlap, rouge_l
from flan_jax.curation.rows import PARTS, Row, text
from flan_jax.errors import check_known


@dataclasses.dataclass(frozen=True)
class Copies:
  """Drops a row whose text is near an earlier kept one's by ROUGE-L.

  >>> rows = [{"instruction": i, "input": "", "output": ""}
  ...         for i in ("Name a fruit.", "Sort a list.", "name a fruit!")]
  >>> [bool(r) for r in Copies().reasons(rows)]
  [False, False, True]

  Attributes:
    of: "prompt" (instruction and input), "instruction", "output" or "row".
    threshold: of ROUGE-L F; above it is near.
    search: "exact", or "minhash" for millions of rows, which may miss some.
    tokenizer: of `tokens.TOKENIZERS`.
    workers: threads.
  """

  of: str = "prompt"
  threshold: float = 0.7
  search: str = "exact"
  tokenizer: str = "words"
  workers: int = 1
  name = "copies"

  def __post_init__(self):
    check_known("COPIES_OF", self.of, PARTS)
    check_known("COPIES_SEARCH", self.search, ("exact", "minhash"))

  def reasons(self, rows: Sequence[Row]) -> list[str | None]:
    """Why each row is dropped; None: it is not."""
    texts = [text(row, self.of) for row in rows]
    limit = rouge_l.Limit(self.threshold)
    told = f"its {self.of} is nearly an earlier one's"
    if self.search == "exact":
      pool = overlap.Pool(
        tokenizer=self.tokenizer, limit=limit, workers=self.workers
      )
      verdicts = pool.admit(texts, nearest=0)
      return [None if v.novel else told for v in verdicts]
    pairs = minhash.near_pairs(
      texts, tokenizer=self.tokenizer, limit=limit, workers=self.workers
    )
    dropped = np.zeros(len(rows), bool)
    # In the order of the later text, so that all before it is decided.
    order = np.lexsort((pairs.first, pairs.second))
    for a, b in zip(
      pairs.first[order].tolist(), pairs.second[order].tolist(), strict=True
    ):
      dropped[b] |= not dropped[a]
    return [told if gone else None for gone in dropped]
