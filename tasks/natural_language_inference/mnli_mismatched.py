"""MNLI, genres unseen in training: the task of MNLI matched (Williams et al., 2018)."""

import dataclasses

from flan_jax.tasks.natural_language_inference import mnli_matched

from flan_jax.data.spec import Splits, last

TASK = dataclasses.replace(
  mnli_matched.TASK,
  name="mnli_mismatched",
  paper_name="MNLI (mismatched)",
  splits=Splits(validation=last("train", 200), test="validation_mismatched"),
)
