"""Science questions for schools, the easier ones (ARC; Clark et al., 2018)."""

import dataclasses

from flan_jax.tasks.closed_book_qa import arc_challenge

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  arc_challenge.TASK,
  name="arc_easy",
  paper_name="ARC-e",
  source=tfds("ai2_arc/ARC-Easy:1.0.0"),
  notes=("Questions with three or five choices are kept, in evaluation too; the published form drops them.",),
)
