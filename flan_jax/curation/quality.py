"""Rules of wording that an answer must pass, with a reason for each that fails.

Source: Zhou et al., 2023, "LIMA: less is more for alignment" (arXiv
2305.11206), section 2.1: answers of Stack Exchange are dropped when they are
too short or too long, written in the first person, or refer to other answers;
links, images and HTML are removed. LIMA's choice was partly by hand, and it has
no published code: the word lists and the rules of style below are ours.
"""

import dataclasses
import re
from collections.abc import Sequence

from flan_jax.curation.rows import Row
from flan_jax.errors import UserError

# "World War I", "Type I" are numerals.
_NUMERAL = "".join(
  rf"(?<!\b{word} )"
  for word in ("War", "Type", "Part", "Phase", "Class", "Act", "Volume")
)
_FIRST_PERSON = re.compile(
  _NUMERAL
  + r"(?<![\w/.])(?:I(?!\s*[./)]|\w)|I['\u2019](?:m|ve|d|ll)|[Mm]y|[Mm]yself|"
  r"[Mm]ine|[Mm]e)(?![\w/])"
)
_OTHER_ANSWERS = re.compile(
  r"\b(?:(?:other|another|previous|earlier|above|accepted|top|first|"
  r"(?:some|any)one(?:\s+else)?['\u2019]s)\s+(?:answers?|repl(?:y|ies)|"
  r"comments?|posts?|responses?)|as\s+(?:mentioned|noted|said|stated|pointed"
  r"\s+out|others?)\s+(?:above|before|below|by\s+\w+|have|already)|"
  r"the\s+OP|(?:see|like|as)\s+@?\w+['\u2019]s\s+(?:answer|comment|reply)|"
  r"(?:up|down)\s?vot\w*)\b|(?:^|\s)@\w+|(?m:^\W{0,3}edit(?:\s?\d+)?\s*:)",
  re.IGNORECASE,
)
_HTML = re.compile(
  r"</?(?:a|b|i|u|p|br|hr|div|span|img|table|t[dhr]|ul|ol|li|h[1-6]|strong|em|"
  r"font|center|sup|sub|blockquote)(?:\s[^<>]*)?/?>",
  re.IGNORECASE,
)
_LINK = re.compile(r"https?://|www\.\w|!?\[[^\]\n]*\]\([^)\s]+\)")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_QUOTED = re.compile(r"[\"\u201c][^\"\u201c\u201d\n]*[\"\u201d]")
_PLACEHOLDER = re.compile(
  r"^\W*(?:n/?a|none|null|nil|todo|tbd|no\s?(?:input|output|answer))\W*$|"
  r"\blorem ipsum\b",
  re.IGNORECASE,
)
_SOURCE = re.compile(
  r"\bthis (?:article|page|post|blog|website|wiki)\b|^\s*(?:sure|certainly|"
  r"of course|as an ai)\b",
  re.IGNORECASE,
)
_END = re.compile(r"[.!?:;)\]}>\"'\u201d\u2019\u2026|*`\u3002\uff01\uff1f]\s*$")
_LETTER = re.compile(r"[^\W\d_]")


@dataclasses.dataclass(frozen=True)
class Lima:
  """LIMA's rules for a row's output; the lengths are the paper's.

  >>> rule = Lima(least=10)
  >>> rule.reason("I think that it is 4, since two and two are four.")
  'is in the first person'
  >>> rule.reason("As mentioned above, the sum of two and two is four.")
  'refers to other answers'
  >>> rule.reason("The sum of two and two is four.") is None
  True

  Code and quotations are not looked at, but for lengths. Words are English;
  other languages need `first_person`, `other_answers` and `style` off.

  Attributes:
    least, most: characters of an output; 0 and None: no limit.
    first_person: drop "I", "my", "me", ...
    other_answers: drop "the accepted answer", "@name", "Edit:", ...
    links: drop links, images and HTML.
    style: drop what is unlike the rest: placeholders such as "N/A"; "this
      article"; an opening such as "Sure"; code that is not closed; a last
      sentence without an end (of outputs of 8 words and more); shouting (more
      than three letters in ten are capitals, of 20 letters and more); the same
      line three times.
  """

  least: int = 1200
  most: int | None = 4096
  first_person: bool = True
  other_answers: bool = True
  links: bool = True
  style: bool = True
  name = "lima"

  def __post_init__(self):
    if self.least < 0 or (self.most is not None and self.most < self.least):
      raise UserError(
        f"LEAST_CHARACTERS is {self.least} and MOST_CHARACTERS {self.most};"
        " the first must be 0 or more and at most the second."
      )

  def reasons(self, rows: Sequence[Row]) -> list[str | None]:
    """Why each row is dropped; None: it is not."""
    return [self.reason(row["output"]) for row in rows]

  def reason(self, text: str) -> str | None:
    """Why an output is dropped, by the first rule that it fails, or None."""
    length = len(text.strip())
    if not length:
      return "is empty"
    if length < self.least:
      return f"has fewer than {self.least:,} characters"
    if self.most is not None and length > self.most:
      return f"has more than {self.most:,} characters"
    plain = _CODE.sub(" ", text)
    said = _QUOTED.sub(" ", plain)
    if self.first_person and _FIRST_PERSON.search(said):
      return "is in the first person"
    if self.other_answers and _OTHER_ANSWERS.search(said):
      return "refers to other answers"
    if self.links and _LINK.search(plain):
      return "has a link or an image"
    if self.links and _HTML.search(plain):
      return "has HTML"
    return _style(text, plain) if self.style else None


def _style(text: str, plain: str) -> str | None:
  if _PLACEHOLDER.search(text):
    return "is a placeholder"
  if _SOURCE.search(plain):
    return "speaks of its source or of the asker"
  if text.count("```") % 2:
    return "has code that is not closed"
  if len(plain.split()) >= 8 and not _END.search(text):
    last = text.strip().splitlines()[-1]
    # A list's items and a table's rows end as they like.
    if not re.match(r"\s*(?:[-*\u2022|]|\d+[.)])", last):
      return "ends in the middle of a sentence"
  letters = _LETTER.findall(plain)
  capitals = sum(letter.isupper() for letter in letters)
  if len(letters) >= 20 and capitals > 0.3 * len(letters):
    return "is in capitals"
  lines = [line.strip() for line in plain.splitlines() if line.strip()]
  if any(lines.count(line) >= 3 for line in set(lines) if len(line) > 8):
    return "says the same line three times"
  return None
