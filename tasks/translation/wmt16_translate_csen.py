"""WMT 2016: news between English and Czech (Bojar et al., 2016)."""

import dataclasses

from flan_jax.tasks.translation import wmt16_translate_deen

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  wmt16_translate_deen.TASK,
  name="wmt16_translate_csen",
  paper_name="WMT-16 EN/CS",
  source=tfds(
    "wmt16_translate/cs-en:1.0.0",
    manual="czeng16pre.deduped-ignoring-sections.txt.gz, from"
    " http://ufal.mff.cuni.cz/czeng/czeng16pre",
  ),
  target="cs",
  templates=wmt16_translate_deen.templates("Czech"),
  family=None,
  notes=("TFDS needs a file of CzEng 1.6pre that is fetched by hand; the source names it.",),
)
