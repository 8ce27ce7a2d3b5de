"""The command that writes the cache of the training job that runs."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from flan_jax import config
from flan_jax.data import template
from flan_jax.gin_files import Binding, Macro, Reference

# Macros that gin/cache.gin has too, with its defaults.
_SHARED = {
  "TASK_FEATURE_LENGTHS": None,
  "TFDS_DATA_DIR": None,
  "MISSING_DATASETS": "skip",
  "MIXTURE_OR_TASK_MODULE": None,
  "TASK_COLLECTION": None,
  "TRAIN_EXAMPLES": None,
  "PROMPT_PREFIX": template.PLAIN.prefix,
  "PROMPT_SUFFIX": template.PLAIN.suffix,
  "SHOT_ANSWER": template.PLAIN.answer,
  "SHOT_SEPARATOR": template.PLAIN.separator,
  "FEW_SHOT_TOKENS": template.PLAIN.shot_tokens,
  "INPUTS_EOS": template.PLAIN.eos,
}
_VOCABULARY = "gin/data/flan_jax_vocabulary.gin"


def rebuild(cache_dir: str, mixture: str) -> str:
  """One line for a shell: gin/cache.gin with the options of the running job.

  >>> rebuild("/data/cache", "flan_sst2")
  ... # doctest: +NORMALIZE_WHITESPACE
  'python launch/run.py --gin_file=gin/cache.gin --gin.CACHE_DIR=/data/cache
  --gin.MIXTURE_OR_TASK_NAME=flan_sst2'

  Args:
    cache_dir: CACHE_DIR of the job.
    mixture: its MIXTURE_OR_TASK_NAME.
  """
  files = ["gin/cache.gin"]
  values: dict[str, Any] = {
    "CACHE_DIR": cache_dir,
    "MIXTURE_OR_TASK_NAME": mixture,
  }
  current = config.current()
  if current is not None:
    bindings = current[0].bindings
    for name, default in _SHARED.items():
      if name in bindings and bindings[name].value != default:
        values[name] = bindings[name].value
    # Files that say what VOCABULARY and TASK_COLLECTION are, and their macros.
    for name in ("VOCABULARY", "TASK_COLLECTION"):
      for binding in _behind(bindings, name):
        file = binding.where.rpartition(":")[0]
        if file.endswith(".gin") and not binding.is_macro:
          files += [f for f in (file,) if f not in (*files, _VOCABULARY)]
        elif binding.is_macro and not isinstance(binding.value, Reference):
          values.setdefault(binding.name, binding.value)
  words = ["python", "launch/run.py", *(f"--gin_file={f}" for f in files)]
  for name, value in values.items():
    plain = isinstance(value, str) and re.fullmatch(
      r"[\w./:-]*/[\w./:-]*|[a-z]\w+", value
    )
    text = value if plain else repr(value)
    words.append(shlex.quote(f"--gin.{name}={text}"))
  return " ".join(words)


def _behind(bindings, name: str) -> Iterator[Binding]:
  """What a macro is made of: macros and bindings of what it refers to."""
  seen, queue = set(), [bindings[name]] if name in bindings else []
  while queue:
    binding = queue.pop()
    if binding.name in seen:
      continue
    seen.add(binding.name)
    yield binding
    for leaf in binding.leaves():
      if isinstance(leaf, Macro) and leaf.name in bindings:
        queue.append(bindings[leaf.name])
      elif isinstance(leaf, Reference):
        queue += [b for b in bindings.values() if b.configurable == leaf.name]
