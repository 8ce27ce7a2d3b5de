"""ANLI R3: the task of ANLI R1, round 3 of its adversaries (Nie et al., 2020)."""

import dataclasses

from flan_jax.tasks.natural_language_inference import anli_r1

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  anli_r1.TASK,
  name="anli_r3",
  paper_name="ANLI R3",
  source=tfds("anli/r3:0.1.0"),
)
