"""Forms of a task: which templates its prompts are drawn from.

The plain form draws over the ten. The others are the ablations of Wei et al.,
2022 (arXiv 2109.01652), section 4.1 (fewer templates) and appendix (no
template, dataset name), the last two of which were described and never
released.

Names in seqio's registry: `flan_rte`, `flan_rte_template_3`,
`flan_rte_templates_4`, `flan_rte_no_template`, `flan_rte_dataset_name`,
`flan_rte_5_shot`;
mixtures alike, before `_train` and `_eval`, but for single templates.
"""

import dataclasses
import difflib

from flan_jax.data import spec
from flan_jax.errors import UserError
from flan_jax.tasks import clusters

# Numbers of the two prompts that are no template; the feature `template` of
# their examples.
NO_TEMPLATE, DATASET_NAME = -1, -2

# Exemplars before a prompt, at most: Wei et al., section 4.4.
MAX_SHOTS = 16


@dataclasses.dataclass(frozen=True)
class Form:
  """Which templates prompts are drawn from.

  Attributes:
    name: "" for the plain form; the suffix of its tasks' and mixtures' names.
    templates: numbers of templates, or `NO_TEMPLATE` or `DATASET_NAME`.
    shots: exemplars before each prompt, at most (`few_shot.py`); turned-around
      templates are then not among a task's.
  """

  name: str
  templates: tuple[int, ...]
  shots: int = 0

  def of(self, task: spec.Task) -> tuple[int, ...]:
    """The templates that `task` has in this form."""
    return tuple(
      n
      for n in self.templates
      if not self.shots or not template(task, n).turned_around
    )


PLAIN = Form("", tuple(range(spec.NUM_TEMPLATES)))

# Of mixtures and tasks.
FORMS: dict[str, Form] = {
  form.name: form
  for form in (
    PLAIN,
    *(Form(f"templates_{n}", tuple(range(n))) for n in (1, 2, 4, 7)),
    Form("no_template", (NO_TEMPLATE,)),
    Form("dataset_name", (DATASET_NAME,)),
    *(
      Form(f"{k}_shot", PLAIN.templates, shots=k)
      for k in range(1, MAX_SHOTS + 1)
    ),
  )
}


# Of tasks alone.
SINGLE: dict[str, Form] = {
  form.name: form
  for form in (Form(f"template_{n}", (n,)) for n in PLAIN.templates)
}


def get(name: str) -> Form:
  """The form called `name`.

  >>> get("templates_4").templates
  (0, 1, 2, 3)

  Raises:
    UserError: there is none; names the nearest.
  """
  known = FORMS | SINGLE
  if name not in known:
    near = difflib.get_close_matches(name, known, 1, 0.0)
    raise UserError(
      f"There is no form {name!r}; the nearest is {near[0]!r}, all are"
      f" {', '.join(f or 'the plain one' for f in known)}."
    )
  return known[name]


def template(task: spec.Task, number: int) -> spec.Template:
  r"""Template `number` of a task, or one of the two that are none.

  Without a template the prompt is the fields that the task's own templates
  show, a line each, and nothing else; with the dataset's name, that name and
  its cluster's stand before them.

  >>> template(rte, DATASET_NAME).inputs  # doctest: +SKIP
  '[Natural language inference: RTE] {premise}\n{hypothesis}'

  Raises:
    UserError: there is no such template.
  """
  every = (*task.templates, *task.inversions)
  if 0 <= number < len(every):
    return every[number]
  target = "{" + (spec.ANSWER if task.choices else spec.TARGET) + "}"
  fields = "\n".join("{" + field + "}" for field in plain_fields(task))
  if number == NO_TEMPLATE:
    return spec.Template(fields, target)
  if number == DATASET_NAME:
    return spec.Template(f"[{title(task)}] {fields}", target)
  raise UserError(
    f"task {task.name!r}: there is no template {number}, only 0 to"
    f" {len(every) - 1}, {NO_TEMPLATE} (none) and {DATASET_NAME}"
    " (dataset name)."
  )


def plain_fields(task: spec.Task) -> tuple[str, ...]:
  """The task's `plain`, else the fields that templates show when they ask for
  the answer, in the order of `task.inputs`: fields for turned-around templates
  alone may tell it."""
  if task.plain:
    return task.plain
  shown = {
    field
    for one in task.templates
    if not one.turned_around
    for field in one.input_fields
  }
  return tuple(field for field in task.inputs if field in shown)


def title(task: spec.Task) -> str:
  """Cluster and dataset: "Natural language inference: RTE"."""
  cluster = clusters.cluster_of(task.name)
  if cluster is None:
    return task.paper_name
  return f"{cluster.replace('_', ' ').capitalize()}: {task.paper_name}"


def rankable(task: spec.Task, number: int) -> bool:
  """Whether template `number` is answered by choosing."""
  return template(task, number).targets == "{" + spec.ANSWER + "}"
