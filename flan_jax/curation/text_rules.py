"""Rules of wording that a generated instruction must pass, before overlap.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560), section 2.2, and
the rules of its code and of Alpaca's.
"""

import dataclasses
import re
import string
from collections.abc import Callable

from flan_jax.errors import UserError

SELF_INSTRUCT_KEYWORDS = (
  "image", "images", "graph", "graphs", "picture", "pictures", "file", "files",
  "map", "maps", "draw", "plot", "go to",
)  # fmt: skip
ALPACA_KEYWORDS = (
  *SELF_INSTRUCT_KEYWORDS,
  "video", "audio", "music", "flowchart", "diagram",
)  # fmt: skip


def count_words(text: str) -> int:
  """Runs of characters between white space.

  >>> count_words("Name a fruit.")
  3
  """
  return len(text.split())


def starts_in_ascii(text: str) -> bool:
  """Whether the first character is ASCII: the published test for English.

  >>> starts_in_ascii("Name"), starts_in_ascii("写")
  (True, False)
  """
  return text[:1].isascii()


@dataclasses.dataclass(frozen=True)
class Rules:
  """What an instruction must satisfy; the defaults are Self-Instruct's.

  >>> Rules().reason("Complete the lyrics.")
  'too short'
  >>> Rules().reason("Write a poem about rain.") is None
  True

  For Chinese give `length=len` and `script=lambda text: True`.

  Attributes:
    least: smallest length.
    most: largest length.
    keywords: whole words, in any case, that a language model cannot serve.
    beginnings: that are refused, in this case.
    length: of a text, words by default.
    script: whether a text is in the wanted script.
  """

  least: int = 4
  most: int = 150
  keywords: tuple[str, ...] = SELF_INSTRUCT_KEYWORDS
  beginnings: tuple[str, ...] = ("Write a program",)
  length: Callable[[str], int] = count_words
  script: Callable[[str], bool] = starts_in_ascii

  def __post_init__(self):
    if not 0 <= self.least <= self.most:
      raise UserError(
        f"least is {self.least} and most is {self.most}; least must be 0 or"
        " more and at most as large as most."
      )

  def reason(self, text: str) -> str | None:
    """Why a text is refused, or None when it passes."""
    length = self.length(text)
    if not text or length < self.least:
      return "too short"
    if length > self.most:
      return "too long"
    for word in self.keywords:
      if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE):
        return f"has the word {word!r}"
    for beginning in self.beginnings:
      if text.startswith(beginning):
        return f"begins with {beginning!r}"
    if text[0] in string.punctuation:
      return "begins with punctuation"
    return None if self.script(text) else "is in another script"
