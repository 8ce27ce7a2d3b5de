"""WMT 2016: news between English and Romanian (Bojar et al., 2016)."""

import dataclasses

from flan_jax.tasks.translation import wmt16_translate_deen

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  wmt16_translate_deen.TASK,
  name="wmt16_translate_roen",
  paper_name="WMT-16 EN/RO",
  source=tfds("wmt16_translate/ro-en:1.0.0", manual=""),
  target="ro",
  templates=wmt16_translate_deen.templates("Romanian"),
  family=None,
  notes=(),
)
