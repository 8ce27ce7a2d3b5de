r"""Options: a task whose prompts do not list what can be answered.

T0's prompts mostly name no options, FLAN's do (Sanh et al., 2022, arXiv
2110.08207, section 4; Wei et al., 2022, arXiv 2109.01652, section 2.4). With
`hidden` the same templates are evaluated in the other way.
"""

import copy
import re

from flan_jax.data import spec

_PLACE = re.compile(r"(\n*)\{" + spec.OPTIONS + r"\}(\n*)")


def hidden(task: spec.Task) -> spec.Task:
  r"""`task` with no `{options}` in any template; else the same.

  >>> hidden(rte).templates[0].inputs  # doctest: +SKIP
  '{premise}\n\nIs it true that {hypothesis}'

  The line that held the options goes, with one of the gaps around it; the
  words around it stay. Two templates may then be the same: both are kept, so
  that a template has the number that it has with its options.
  """
  out = copy.copy(task)
  templates = (
    spec.Template(without(t.inputs), t.targets) for t in task.templates
  )
  # Not `replace`, which refuses templates that are the same.
  object.__setattr__(out, "templates", tuple(templates))
  return out


def without(text: str) -> str:
  r"""A template's text without its options.

  >>> without("{premise}\n\nTrue?\n\n{options}")
  '{premise}\n\nTrue?'
  >>> without("Pick one.\n{options}\n\n{text}")
  'Pick one.\n\n{text}'
  """
  return _PLACE.sub(lambda m: max(m.groups(), key=len), text).strip("\n")
