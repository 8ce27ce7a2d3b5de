"""WMT 2016: news between English and Turkish (Bojar et al., 2016)."""

import dataclasses

from flan_jax.tasks.translation import wmt16_translate_deen

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  wmt16_translate_deen.TASK,
  name="wmt16_translate_tren",
  paper_name="WMT-16 EN/TR",
  source=tfds("wmt16_translate/tr-en:1.0.0", manual=""),
  target="tr",
  templates=wmt16_translate_deen.templates("Turkish"),
  family=None,
  notes=(),
)
