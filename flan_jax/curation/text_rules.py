"""Rules of wording that a generated instruction must pass, before overlap.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560), section 2.2, and
the rules of its code and of Alpaca's.
"""

import dataclasses
import re
import string
from collections.abc import Callable

from flan_jax.errors import UserError, check_known

SELF_INSTRUCT_KEYWORDS = (
  "image", "images", "graph", "graphs", "picture", "pictures", "file", "files",
  "map", "maps", "draw", "plot", "go to",
)  # fmt: skip
ALPACA_KEYWORDS = (
  *SELF_INSTRUCT_KEYWORDS,
  "video", "audio", "music", "flowchart", "diagram",
)  # fmt: skip

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def count_words(text: str) -> int:
  """Runs of characters between white space.

  >>> count_words("Name a fruit.")
  3
  """
  return len(text.split())


def count_characters(text: str) -> int:
  """Characters that are no white space: for scripts without spaces.

  >>> count_characters("写一首 诗。")
  5
  """
  return sum(not c.isspace() for c in text)


def starts_in_ascii(text: str) -> bool:
  """Whether the first character is ASCII: the published test for English.

  >>> starts_in_ascii("Name"), starts_in_ascii("写")
  (True, False)
  """
  return text[:1].isascii()


def has_han(text: str) -> bool:
  """Whether a Chinese character is in it; other scripts may stand beside it.

  >>> has_han("Python中的列表是什么？"), has_han("What is a list?")
  (True, False)
  """
  return bool(_HAN.search(text))


def any_script(text: str) -> bool:
  """True for every text."""
  del text
  return True


LENGTHS = {"words": count_words, "characters": count_characters}
SCRIPTS = {"ascii": starts_in_ascii, "han": has_han, "any": any_script}


@dataclasses.dataclass(frozen=True)
class Rules:
  """What an instruction must satisfy; the defaults are Self-Instruct's.

  >>> Rules().reason("Complete the lyrics.")
  'too short'
  >>> Rules().reason("Write a poem about rain.") is None
  True

  >>> chinese = Rules(length="characters", script="han", keywords=("图片",))
  >>> chinese.reason("写一首诗。"), chinese.reason("请描述这张图片。")
  (None, "has the word '图片'")

  Attributes:
    least: smallest length.
    most: largest length.
    keywords: whole words, in any case, that a language model cannot serve; a
      keyword that is not ASCII is found inside a word too, since Chinese has
      no spaces between words.
    beginnings: that are refused, in this case.
    length: what a text's length is counted in: a name of `LENGTHS` or a
      function from text to number.
    script: which texts are in the wanted script: a name of `SCRIPTS` or a
      function from text to bool.

  Raises:
    UserError: sizes that no text can have, an unknown name.
  """

  least: int = 4
  most: int = 150
  keywords: tuple[str, ...] = SELF_INSTRUCT_KEYWORDS
  beginnings: tuple[str, ...] = ("Write a program",)
  length: str | Callable[[str], int] = "words"
  script: str | Callable[[str], bool] = "ascii"

  def __post_init__(self):
    if not 0 <= self.least <= self.most:
      raise UserError(
        f"least is {self.least} and most is {self.most}; least must be 0 or"
        " more and at most as large as most."
      )
    for name, known in (("length", LENGTHS), ("script", SCRIPTS)):
      value = getattr(self, name)
      if not callable(value):
        check_known(f"The rules' {name}", value, known)
    for name in ("keywords", "beginnings"):
      value = getattr(self, name)
      if isinstance(value, str):
        raise UserError(f"The rules' {name} is one text: write ({value!r},).")

  def reason(self, text: str) -> str | None:
    """Why a text is refused, or None when it passes."""
    measure = LENGTHS.get(self.length, self.length)
    right_script = SCRIPTS.get(self.script, self.script)
    length = measure(text)
    if not text or length < self.least:
      return "too short"
    if length > self.most:
      return "too long"
    for word in self.keywords:
      edge = r"\b" if word.isascii() else ""
      if re.search(f"{edge}{re.escape(word)}{edge}", text, re.IGNORECASE):
        return f"has the word {word!r}"
    for beginning in self.beginnings:
      if text.startswith(beginning):
        return f"begins with {beginning!r}"
    if text[0] in string.punctuation:
      return "begins with punctuation"
    return None if right_script(text) else "is in another script"
