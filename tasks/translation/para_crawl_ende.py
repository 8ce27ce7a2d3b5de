"""ParaCrawl: sentences of web pages between English and German (Bañón et al., 2020)."""

import dataclasses

from flan_jax.tasks.translation import para_crawl_enes

from flan_jax.data.spec import tfds

TASK = dataclasses.replace(
  para_crawl_enes.TASK,
  name="para_crawl_ende",
  paper_name="ParaCrawl EN/DE",
  source=tfds("para_crawl/ende:1.2.0"),
  target="de",
  templates=para_crawl_enes.templates("German"),
  family="translation_ende",
  notes=("In the paper's list and not in the released code; cut as the code cuts EN/ES.",),
)
