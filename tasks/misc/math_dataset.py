"""Linear equations with one unknown (Mathematics dataset; Saxton et al., 2019)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="math_dataset",
  paper_name="Math",
  source=tfds("math_dataset/algebra__linear_1d:1.0.0"),
  splits=Splits(validation=last("train", 200), test="test"),
  inputs={"question": "question"},
  target="answer",
  templates=(
    ("{question}", "{target}"),
    ("What number do you get?\n\n{question}", "{target}"),
    ("Exercise: {question}\nSolution:", "{target}"),
    ("This stands on the blackboard, and a pupil is called up to write the solution under it. Which number is that?\n\n{question}", "{target}"),
    ("Below is an equation with one unknown. Find the value of the unknown for which both sides are equal, and give this value alone, as digits.\n\n{question}", "{target}"),
    ("Could you do this one for me? I only need the result.\n\n{question}", "{target}"),
    ("{question}\n\nThe unknown is equal to ___", "{target}"),
    ("Work it out.\n\n{question}", "{target}"),
    ('Write a task of the form "Solve ... for ...", with one unknown that turns out to be {target}.', "{question}"),
    ("Solution: {target}\nA linear equation with this solution, as an exercise:", "{question}"),
  ),
  metrics=("exact_match",),
  postprocess="first_line",
  notes=("As in the code, one of the dataset's modules is used, algebra__linear_1d.",),
)
