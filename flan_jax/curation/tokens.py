"""How a text is cut into the tokens that overlap is counted in."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from flan_jax.errors import UserError, check_known

Tokenize = Callable[[str], Sequence[str]]

# More texts than this share that have letters but no token are a mistake.
MOST_BLANK = 0.1

_ASCII_RUN = re.compile(r"[a-z0-9]+")
_WORD = re.compile(r"[^\W_]+")
_CHARACTER = re.compile(r"[a-z0-9]+|[^\W_]")


def rouge(text: str) -> list[str]:
  """Runs of a-z and 0-9 of the lower-cased text, as `rouge_score` cuts it.

  >>> rouge("It's the 2nd café.")
  ['it', 's', 'the', '2nd', 'caf']

  Nothing is stemmed. Scripts other than Latin give no tokens at all.
  """
  return _ASCII_RUN.findall(text.lower())


def words(text: str) -> list[str]:
  """Runs of letters and digits of any script, lower case.

  >>> words("Das 2. Café, über Köln.")
  ['das', '2', 'café', 'über', 'köln']
  """
  return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def characters(text: str) -> list[str]:
  """Each letter alone, except runs of a-z and 0-9: for Chinese, Japanese, Thai.

  >>> characters("用Python写一首诗。")
  ['用', 'python', '写', '一', '首', '诗']

  Full-width forms of Latin letters and digits count as the plain ones.
  """
  return _CHARACTER.findall(unicodedata.normalize("NFKC", text).lower())


TOKENIZERS: dict[str, Tokenize] = {
  "rouge": rouge,
  "words": words,
  "characters": characters,
}


def resolve(tokenizer: str | Tokenize) -> Tokenize:
  """A function from text to tokens, for a known name or a function itself.

  >>> resolve("rouge") is rouge
  True

  Raises:
    UserError: for a name that is not known.
  """
  if callable(tokenizer):
    return tokenizer
  check_known("tokenizer", tokenizer, TOKENIZERS)
  return TOKENIZERS[tokenizer]


class Blanks:
  """Counts texts with letters but no token, and refuses too many.

  Such a text is similar to nothing, so no copy of it would be found.

  >>> blanks = Blanks()
  >>> blanks.see(["Name a fruit.", "!"], [["name", "a", "fruit"], []])
  >>> blanks.seen, blanks.blank
  (2, 0)
  """

  def __init__(self):
    self.seen = 0
    self.blank = 0

  def see(self, texts: Sequence[str], tokens: Sequence[Sequence[str]]) -> None:
    """Counts these texts too.

    Raises:
      UserError: when more than one text in ten so far is blank.
    """
    blank = [
      text
      for text, found in zip(texts, tokens, strict=True)
      if not found and any(c.isalpha() for c in text)
    ]
    self.seen += len(texts)
    self.blank += len(blank)
    if blank and self.blank > MOST_BLANK * self.seen:
      raise UserError(
        f"The tokenizer finds no token in {self.blank} of {self.seen} texts,"
        f" for example {blank[0][:40]!r}: copies of them would not be found."
        " Use tokenizer='characters' for Chinese, Japanese or Thai, 'words' for"
        " other scripts."
      )
