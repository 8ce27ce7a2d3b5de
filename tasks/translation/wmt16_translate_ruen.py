"""WMT 2016: news between English and Russian (Bojar et al., 2016)."""

import dataclasses

from flan_jax.tasks.translation import wmt16_translate_deen

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  wmt16_translate_deen.TASK,
  name="wmt16_translate_ruen",
  paper_name="WMT-16 EN/RU",
  source=tfds(
    "wmt16_translate/ru-en:1.0.0",
    manual="1mcorpus.zip, from https://translate.yandex.ru/corpus?lang=en",
  ),
  target="ru",
  templates=wmt16_translate_deen.templates("Russian"),
  family=None,
  notes=("TFDS needs a file of the Yandex corpus that is fetched by hand; the source names it.",),
)
