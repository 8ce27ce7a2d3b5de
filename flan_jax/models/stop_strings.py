"""Stop strings: texts that end an answer wherever its tokens have borders.

A stop string can begin in one token and end in another, and one token can hold
it and more. So it is looked for in the text, on the host.
"""

from collections.abc import Callable, Sequence


def cut(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
  r"""`text` up to the first stop string, and whether there is one.

  >>> cut("yes\n\nQuestion:", ("Question:", "\n\n"))
  ('yes', True)
  """
  places = [text.find(s) for s in stop_strings]
  found = [p for p in places if p >= 0]
  return (text[: min(found)], True) if found else (text, False)


def tokens_needed(
  tokens: Sequence[int],
  stop_strings: Sequence[str],
  decode: Callable[[list[int]], str],
) -> int | None:
  """The fewest first tokens whose text holds a stop string; None: it has none.

  >>> tokens_needed([104, 105, 33, 33], ("i!",), lambda t: bytes(t).decode())
  3

  Args:
    tokens: of one answer, without end ids.
    stop_strings: see `cut`.
    decode: tokens to text. More tokens must only append to the text, but for
      the last character, which may be incomplete.
  """
  tokens = [int(t) for t in tokens]
  if not cut(decode(tokens), stop_strings)[1]:
    return None
  few, enough = 0, len(tokens)
  while few + 1 < enough:
    middle = (few + enough) // 2
    if cut(decode(tokens[:middle]), stop_strings)[1]:
      enough = middle
    else:
      few = middle
  return enough
