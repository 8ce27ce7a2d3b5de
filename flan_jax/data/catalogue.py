"""The catalogue: every task by name, and the one call that registers them.

Names in seqio's registry (registry-wide, so prefixed; seqio's pattern allows
no slash):
  flan_rte               draws over its ten templates
  flan_rte_template_3    template 3 alone
  flan_rte_templates_4, flan_rte_no_template, …   its other forms (forms.py)
  flan_holdout_nli_train, flan_holdout_nli_eval, flan_all_train, …   mixtures

seqio's `metric_fns` stay empty: flan_jax scores with `eval/`, which ranks
choices, averages over templates and takes several references; seqio's
evaluator can do none of these.

For people (`browse.py`):
  python -m flan_jax.data.catalogue --html catalogue.html
  python -m flan_jax.data.catalogue --show anli_r1
"""

import ast
import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import itertools
import pathlib
import sys
import textwrap
import types
from collections.abc import Mapping

import seqio

from flan_jax.data import (
  forms,
  pipeline,
  preprocessors,
  registry,
  sources,
  spec,
  splits,
  template,
)
from flan_jax.errors import UserError
from flan_jax.tasks import clusters as table

PREFIX = "flan_"

# What `register` wrote, and for which vocabulary and wrapper.
_registered: dict[str, object] = {}
_written = registry.Written("flan_jax.tasks")


@functools.cache
def load() -> dict[str, spec.Task]:
  """Every task by name, in the order of tasks/clusters.py; extras come last.

  >>> load()["rte"].paper_name
  'RTE'

  Raises:
    spec.SpecError: a file has no TASK, its TASK has another name, or a family
      lies in two clusters; names the file.
  """
  out = {}
  families: dict[str, str] = {}
  for cluster in {**table.CLUSTERS, **table.EXTRAS}:
    names = table.CLUSTERS.get(cluster, ()) + table.EXTRAS.get(cluster, ())
    _check_folder(cluster, names)
  for cluster, names in (*table.CLUSTERS.items(), *table.EXTRAS.items()):
    for name in names:
      task = _load(cluster, name)
      out[name] = task
      if task.family:
        home = families.setdefault(task.family, cluster)
        if home != cluster:
          raise spec.SpecError(
            f"task {name!r}: its family {task.family!r} is in cluster"
            f" {home!r}; a family is held out together, so move {name}.py."
          )
  return out


def _load(cluster: str, name: str) -> spec.Task:
  where = f"tasks/{cluster}/{name}.py"
  try:
    module = importlib.import_module(f"flan_jax.tasks.{cluster}.{name}")
  except ModuleNotFoundError as e:
    if not (e.name or "").startswith("flan_jax.tasks"):
      raise
    raise spec.SpecError(
      f"{where} does not exist, but tasks/clusters.py lists it."
    ) from None
  task = getattr(module, "TASK", None)
  if not isinstance(task, spec.Task):
    raise spec.SpecError(f"{where} has no TASK = Task(...).")
  if task.name != name:
    raise spec.SpecError(
      f"{where}: its TASK is called {task.name!r}; a task has the name of its"
      f" file, {name!r}."
    )
  if (task.splits.train is None) != (name in table.EVALUATION_ONLY):
    raise spec.SpecError(
      f"{where}: its splits have train={task.splits.train!r}; a task without"
      " training rows, and no other, is in EVALUATION_ONLY of"
      " tasks/clusters.py."
    )
  return task


def _check_folder(cluster: str, names: tuple[str, ...]):
  package = importlib.import_module(f"flan_jax.tasks.{cluster}")
  folder = pathlib.Path(package.__path__[0])
  extra = sorted(
    {p.stem for p in folder.glob("*.py")} - {"__init__"} - set(names)
  )
  if extra:
    raise spec.SpecError(
      f"tasks/{cluster}/{extra[0]}.py is not in tasks/clusters.py; add"
      f" {extra[0]!r} to cluster {cluster!r} there."
    )


def get(name: str) -> spec.Task:
  """The task called `name`.

  Raises:
    UserError: there is none; names the nearest.
  """
  tasks = load()
  if name not in tasks:
    near = difflib.get_close_matches(name, tasks, 1, 0.0)
    raise UserError(f"There is no task {name!r}; the nearest is {near[0]!r}.")
  return tasks[name]


def clusters() -> dict[str, tuple[str, ...]]:
  """Cluster -> names of its tasks (tasks/clusters.py), without extras."""
  return dict(table.CLUSTERS)


def cluster_of(name: str) -> str:
  """The cluster of the task called `name`, which may be an extra."""
  get(name)
  return table.cluster_of(name)


def registered_name(name: str, form: forms.Form = forms.PLAIN) -> str:
  """What seqio knows a task as.

  >>> registered_name("rte"), registered_name("rte", forms.get("template_3"))
  ('flan_rte', 'flan_rte_template_3')
  """
  return PREFIX + "_".join(filter(None, (name, form.name)))


def of_seqio(task: seqio.Task) -> spec.Task | None:
  """Our task behind one of seqio's; None for another project's."""
  return getattr(task, "flan_jax_task", None)


def form_of(task: seqio.Task) -> forms.Form:
  """The form in which one of seqio's tasks has our task."""
  return task.flan_jax_form


def seqio_task(
  task: spec.Task,
  vocabulary: seqio.Vocabulary,
  *,
  wrapper: template.Wrapper = template.PLAIN,
  form: forms.Form = forms.PLAIN,
) -> seqio.Task:
  """A task as seqio's, not registered: see `register`.

  Its examples have `inputs` and `targets` (int32, EOS at the end, of inputs if
  the wrapper says so, within the lengths), both as text (`*_pretokenized`),
  `template`, `trimmed` (tokens that did not fit), `example_index` and the
  row's fields.
  """
  features = {
    "inputs": seqio.Feature(vocabulary, add_eos=wrapper.eos),
    "targets": seqio.Feature(vocabulary),
  }
  source = sources.source(task)
  out = pipeline.RowTask(
    registered_name(task.name, form),
    source=source,
    output_features=features,
    preprocessors=[
      preprocessors.prepare_rows(task),
      seqio.CacheDatasetPlaceholder(required=False),
      preprocessors.render_rows(
        task,
        form.of(task),
        wrapper,
        shots=form.shots,
        train=functools.partial(source.get_dataset, "train"),
      ),
    ],
  )
  out.flan_jax_task = task
  out.flan_jax_form = form
  return out


def register(
  vocabulary: seqio.Vocabulary | str | None = None,
  *,
  wrapper: template.Wrapper = template.PLAIN,
  train_examples: int | None = None,
) -> None:
  """Writes all tasks and mixtures to seqio's registry.

  Calling it again with the same arguments changes nothing; with others, it
  replaces what it wrote.

  Args:
    vocabulary: of inputs and targets; a name or path is loaded by
      `vocabulary.load`; None is the vocabulary that ships with flan_jax.
    wrapper: what surrounds every prompt.
    train_examples: training rows of each task at most, the first ones; None:
      as many as the task says.

  Raises:
    UserError: another project has registered one of the names.
  """
  from flan_jax.data import mixtures
  from flan_jax.data import vocabulary as vocabularies

  if vocabulary is None or not isinstance(vocabulary, seqio.Vocabulary):
    vocabulary = _load_vocabulary(vocabularies, vocabulary)
  options = {
    "vocabulary": vocabulary,
    "wrapper": wrapper,
    "train_examples": train_examples,
  }
  if _registered == options and _written.complete():
    return
  unregister()
  _registered.update(options)
  for task in load().values():
    task = _few(task, train_examples)
    for form in (forms.FORMS | forms.SINGLE).values():
      if form.shots and task.splits.train is None:
        continue
      made = seqio_task(task, vocabulary, wrapper=wrapper, form=form)
      _written.add(made)
  for split, form in itertools.product(
    splits.all_splits(), forms.FORMS.values()
  ):
    for mixture in mixtures.of_split(split, form).values():
      _written.add(mixture)


def _few(task: spec.Task, train_examples: int | None) -> spec.Task:
  """The task with fewer training rows."""
  if train_examples is None or task.splits.train is None:
    return task
  most = min(train_examples, task.splits.max_train_examples)
  few = dataclasses.replace(task.splits, max_train_examples=most)
  return dataclasses.replace(task, splits=few)


@functools.cache
def _load_vocabulary(module, name):
  return module.load() if name is None else module.load(name)


def vocabulary() -> seqio.Vocabulary:
  """That of the tasks which `register` wrote last."""
  return _registered["vocabulary"]


def unregister() -> None:
  """Removes what `register` wrote from seqio's registry."""
  _written.clear()
  _registered.clear()


# -------------------------------------------------------------- fingerprint


def fingerprint(task: spec.Task) -> str:
  """A short hash of all that decides a task's examples, but the data.

  Source and version, splits, fields, choices, templates, and the code of
  `prepare` and `keep` with the functions of this package that they call;
  comments, docstrings and notes do not count.

  >>> len(fingerprint(load()["rte"]))
  12
  """
  parts = [
    task.name,
    task.source,
    task.splits,
    sorted(task.inputs.items()),
    task.choices,
    task.label,
    task.target,
    task.references,
    task.templates,
    *((task.plain,) if task.plain else ()),
    *filter(None, (task.inversions, task.turns)),
    *(sorted(_code(f).items()) for f in (task.prepare, task.keep) if f),
  ]
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _code(function, seen: frozenset[str] = frozenset()) -> Mapping[str, str]:
  """Qualified name -> syntax tree of a function and what it calls of ours."""
  name = f"{function.__module__}.{function.__qualname__}"
  if name in seen:
    return {}
  code = function.__code__
  try:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
  except (OSError, SyntaxError):  # a lambda amid a line, or made by exec
    return {name: repr((code.co_code, code.co_names, code.co_consts))}
  out = {name: ast.dump(_without_docstring(tree))}
  for node in ast.walk(tree):
    value = None
    if isinstance(node, ast.Name):
      value = function.__globals__.get(node.id)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
      owner = function.__globals__.get(node.value.id)
      if isinstance(owner, types.ModuleType):
        value = getattr(owner, node.attr, None)
    if isinstance(value, types.FunctionType):
      if value.__module__.startswith("flan_jax"):
        out |= _code(value, seen | out.keys())
    elif isinstance(value, str | int | float | tuple | list | dict):
      out[f"{name}:{ast.unparse(node)}"] = repr(value)
  return out


def _without_docstring(tree):
  body = getattr(tree, "body", None)
  if (
    isinstance(body, list)
    and isinstance(body[0], ast.Expr)
    and isinstance(body[0].value, ast.Constant)
  ):
    tree.body = body[1:] or [ast.Pass()]
  return tree


if __name__ == "__main__":
  # `browse` imports this module by its name, which is another one than the
  # script's; it alone does the work.
  from flan_jax.data import browse

  sys.exit(browse.main(sys.argv[1:]))
