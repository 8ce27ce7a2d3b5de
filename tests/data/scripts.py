"""Strings of several scripts, with what tokenizers get wrong."""

import random

# First and last character of a script's letters.
SCRIPTS = {
  "latin": ("a", "z"),
  "latin_extended": ("À", "ž"),
  "greek": ("Α", "ω"),
  "cyrillic": ("А", "я"),
  "hebrew": ("א", "ת"),
  "arabic": ("ا", "ي"),
  "devanagari": ("अ", "ह"),
  "thai": ("ก", "ฮ"),
  "georgian": ("ა", "ჰ"),
  "hangul": ("가", "힣"),
  "hiragana": ("ぁ", "ん"),
  "han": ("一", "龥"),
  "emoji": ("😀", "🙏"),
  "mathematics": ("𝐀", "𝐳"),
}
WORDS = [
  "the", "of", "and", "is", "a", "premise", "hypothesis", "answer", "review",
  "don't", "we'll", "I'M", "they'Re", "camelCase", "HTTPServer", "2024",
  "1,024", "3.14", "007", "½", "Ⅷ", "²", "100000", "x=1", "e-mail",
]  # fmt: skip
MARKS = [*".,;:!?()[]{}<>/\\|_-+*=#@&%$^~`'\"", "...", "->", "==", "```"]
SPACES = [
  " ",
  " ",
  " ",
  "  ",
  "   ",
  "\n",
  "\n\n",
  "\r\n",
  "\t",
  " \n",
  "\u3000",
]
SPACES += ["\u00a0", "\u200b", "\u2028"]
HARD = [
  "", " ", "  ", "      x", "x      ", "\n", "\r\n\r\n", "\t\t", "a\u0301e\u0308o\u0302",
  "e\u0301 é ﬁ ½ ①", "\u0301", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽", "ﬀ\u00adx", "\ufeffx", "x\u0000y", "\ud7ff\ue000",
  "def f(x):\n    return x  # twice\n\n\tif x == 1:\r\n\t\tpass", "1234567890",
  "  42", " \n 42", "a 1 22  333   4444", "don't DON'T we'LL it's 's", "<0x0A>",
  "<unk><s></s>", "aaaaaaaaaaaaaa", "ababababab", "----------", "▁▁ ▁", "=== ===",
  "http://x.org/a?b=c&d=%20#e", "日本語のテキスト、漢字。", "مرحبا بالعالم", "שלום", "नमस्ते दुनिया", "สวัสดี",
  "한국어 텍스트", "한국어", "Ἀθῆναι", "ŁÓDŹ straße İstanbul", "😀😀😀", "\U0001f9d1\u200d\U0001f680",
]  # fmt: skip


def strings(count: int, seed: int = 0) -> list[str]:
  """`count` of them: the hard cases, then words of mixed scripts."""
  rng = random.Random(seed)

  def word():
    kind = rng.random()
    if kind < 0.4:
      return rng.choice(WORDS)
    if kind < 0.55:
      return rng.choice(MARKS) * rng.choice((1, 1, 1, 2, 5))
    if kind < 0.65:
      return str(rng.randrange(10 ** rng.randint(1, 9)))
    first, last = SCRIPTS[rng.choice(list(SCRIPTS))]
    letters = [
      chr(rng.randint(ord(first), ord(last))) for _ in range(rng.randint(1, 7))
    ]
    if kind > 0.95:
      letters.append("\u0301")
    return "".join(letters).upper() if kind > 0.9 else "".join(letters)

  out = list(HARD)
  while len(out) < count:
    parts = [rng.choice(["", *SPACES])]
    for _ in range(rng.randint(1, 12)):
      parts += [word(), rng.choice(["", *SPACES])]
    out.append("".join(parts))
  return out[:count]
