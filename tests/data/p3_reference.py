"""PromptSource's way, restated plainly: the reference of tests and benchmark.

What `apply` of promptsource 0.2.3 does, step by step, written from its
documented behaviour: the environment with Jinja's defaults, the program parsed
again at every call, values protected by a text that stands for `|||`. Its
`choice` draws from the global random numbers; here from those given.
"""

import collections
import random

import jinja2

PROTECTED = "3ed2dface8203c4c9dfb1a5dc58e41e0"


def environment(rng=random, undefined=jinja2.Undefined) -> jinja2.Environment:
  def most_frequent(items):
    if not items:
      return None
    counts = collections.Counter(items).most_common()
    return [item for item, n in counts if n == counts[0][1]]

  env = jinja2.Environment(loader=jinja2.BaseLoader, undefined=undefined)
  env.globals["zip"] = zip
  env.filters["choice"] = lambda items: rng.choice(items)
  env.filters["random"] = env.filters["choice"]
  env.filters["most_frequent"] = most_frequent
  return env


def _protected(example):
  return {
    k: v.replace("|||", PROTECTED) if isinstance(v, str) else v
    for k, v in example.items()
  }


def _parts(text) -> list[str]:
  return [p.replace(PROTECTED, "|||").strip() for p in text.split("|||")]


def choices(prompt, example, env):
  if prompt.answer_choices is None:
    return None
  template = env.from_string(prompt.answer_choices)
  text = template.render(**_protected(example))
  return [p.strip().replace(PROTECTED, "|||") for p in text.split("|||")]


def apply(prompt, example, env, truncate=True) -> list[str]:
  text = prompt.jinja
  if truncate:
    text = text.replace("}}", " | string | truncate(2048) }}")
  template = env.from_string(text)
  values = _protected(example)
  values["answer_choices"] = choices(prompt, example, env)
  return _parts(template.render(**values))
