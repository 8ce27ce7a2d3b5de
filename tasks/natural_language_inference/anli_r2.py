"""ANLI R2: the task of ANLI R1, round 2 of its adversaries (Nie et al., 2020)."""

import dataclasses

from flan_jax.tasks.natural_language_inference import anli_r1

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  anli_r1.TASK,
  name="anli_r2",
  paper_name="ANLI R2",
  source=tfds("anli/r2:0.1.0"),
)
