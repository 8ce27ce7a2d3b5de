"""ParaCrawl: sentences of web pages between English and French (Bañón et al., 2020)."""

import dataclasses

from flan_jax.tasks.translation import para_crawl_enes

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  para_crawl_enes.TASK,
  name="para_crawl_enfr",
  paper_name="ParaCrawl EN/FR",
  source=tfds("para_crawl/enfr:1.2.0"),
  target="fr",
  templates=para_crawl_enes.templates("French"),
  family="translation_enfr",
  notes=("In the paper's list and not in the released code; cut as the code cuts EN/ES.",),
)
