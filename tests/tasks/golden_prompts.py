"""The rendered prompts of one test row per task, to be read in review.

  python -m tests.tasks.golden_prompts            # says what differs
  python -m tests.tasks.golden_prompts --update   # writes tests/golden/prompts

A lost backslash or a doubled question mark is invisible in a template and
plain here. The row is the first of the embedded sample's test split, in the
order in which TFDS stores it.
"""

import pathlib
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "prompts"
# The forms without a template, of a classification task, one with choices of
# its rows, and two that are generated.
FORMS = FOLDER.parent / "forms"
IN_FORMS = ("rte", "copa", "common_gen", "wmt16_translate_deen")


def known() -> dict:
  """The catalogue's tasks, and those of FLAN 2022 beside them, by name."""
  from flan_jax.data import catalogue, flan_2022

  return {**catalogue.load(), **flan_2022.load()}


def rendered(task, templates=None) -> str:
  """The prompts and targets of the task's row; seqio's data is set.

  Without `templates`, its ten and its inversions.
  """
  from flan_jax.data import evaluation
  from tests.data import made

  if templates is None:
    templates = range(len(task.templates) + len(task.inversions))
  parts = []
  for e in evaluation.evaluation_examples(
    task,
    "test",
    vocabulary=made.BYTES,
    lengths=None,
    max_examples=1,
    templates=templates,
  ):
    kind = "ranked" if e.choices else "generated"
    parts.append(
      f"──── {task.name}, template {e.template}, {kind}\n{e.inputs_text}\n"
      f"──── target\n{e.targets_text}\n"
    )
  return "\n".join(parts)


def path(task) -> pathlib.Path:
  return FOLDER / f"{task.name}.txt"


def in_forms(task) -> str:
  """As `rendered`, of the two forms that have no template."""
  from flan_jax.data import forms

  return rendered(task, (forms.NO_TEMPLATE, forms.DATASET_NAME))


def form_path(task) -> pathlib.Path:
  return FORMS / f"{task.name}.txt"


def main(update: bool) -> int:
  import seqio

  from flan_jax.data import sample

  tasks = known()
  differing = []
  with tempfile.TemporaryDirectory() as folder:
    sample.write_sample(tuple(tasks.values()), folder)
    seqio.set_tfds_data_dir_override(folder)
    texts = {path(task): rendered(task) for task in tasks.values()}
    texts |= {form_path(tasks[n]): in_forms(tasks[n]) for n in IN_FORMS}
    for file, text in texts.items():
      if not file.exists() or file.read_text(encoding="utf-8") != text:
        differing.append(f"{file.parent.name}/{file.stem}")
        if update:
          file.parent.mkdir(parents=True, exist_ok=True)
          file.write_text(text, encoding="utf-8")
  stale = sorted({p.stem for p in FOLDER.glob("*.txt")} - set(tasks))
  for name in stale:
    if update:
      (FOLDER / f"{name}.txt").unlink()
  verb = "written" if update else "different"
  print(f"{verb}: {', '.join(differing + stale) or 'none'}")
  return 0 if update or not differing + stale else 1


if __name__ == "__main__":
  sys.exit(main("--update" in sys.argv[1:]))
