"""WMT 2016: news between English and Finnish (Bojar et al., 2016)."""

import dataclasses

from flan_jax.tasks.translation import wmt16_translate_deen

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  wmt16_translate_deen.TASK,
  name="wmt16_translate_fien",
  paper_name="WMT-16 EN/FI",
  source=tfds("wmt16_translate/fi-en:1.0.0", manual=""),
  target="fi",
  templates=wmt16_translate_deen.templates("Finnish"),
  family=None,
  notes=(),
)
