"""The datasets of T0: sizes, roles, and where their rows are.

One line of a table for each: Hugging Face's name and subset, its published
training rows, and the TFDS dataset that serves the same rows, where there is
one; headings say in which mixture it is first trained on. Roles and sizes are
those of the list that was released with T0 (38, 48 and 54 training datasets:
313, 392 and 464 prompts).

Source: Sanh et al., 2022 (arXiv 2110.08207), sections 3 and 5, appendix.
"""

import dataclasses
import functools

from flan_jax.data import p3_adapters as adapters
from flan_jax.data import spec
from flan_jax.data.p3_prompts import dataset_name
from flan_jax.errors import check_known

# Mixtures, each with what the one before has.
MIXTURES = ("t0", "t0_plus", "t0_plus_plus")
NEVER = ""

# A dataset of more rows weighs as much as one of so many, over all prompts.
MAX_RATE = 500_000

NO_LIMIT = 10**12


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One dataset of T0's list.

  Attributes:
    dataset, subset: Hugging Face's names.
    group: T0's heading.
    trained: the first of `MIXTURES` that trains on it; "" none.
    rows: published training rows; 0 where it has none.
    tfds: TFDS name and version of the same rows; None: not in TFDS.
    adapter: TFDS rows to rows with the prompts' field names.
    held_out: whether T0 evaluates it.
    splits: ours in terms of Hugging Face's.
    tfds_splits: the same of TFDS, where they are called otherwise.
    round: the part of a dataset that this is (ANLI).
  """

  dataset: str
  subset: str | None
  group: str
  trained: str
  rows: int
  tfds: str | None = None
  adapter: adapters.Adapter = adapters.same
  held_out: bool = False
  splits: spec.Splits | None = None
  tfds_splits: spec.Splits | None = None
  round: str = ""

  @property
  def key(self) -> str:
    """Its name: `glue/mrpc`, `anli/r1`."""
    name = dataset_name(self.dataset, self.subset)
    return f"{name}/{self.round}" if self.round else name

  def trains(self, mixture: str) -> bool:
    """Whether a mixture trains on it."""
    return self.trained != NEVER and (
      MIXTURES.index(self.trained) <= MIXTURES.index(mixture)
    )

  def rate(self, prompts: int) -> int:
    """The rate of each of its prompts (T0's released code).

    A dataset of at most 500,000 rows weighs its rows for every prompt; a
    larger one 500,000 over all its prompts.

    >>> by_name("glue/mrpc").rate(7), by_name("gigaword").rate(9)
    (3668, 55555)
    """
    return self.rows if self.rows <= MAX_RATE else MAX_RATE // prompts


_LIMIT = {"max_train_examples": NO_LIMIT}
_WITH_VALIDATION = spec.Splits("validation", "validation", **_LIMIT)
_HELD_OUT = spec.Splits(None, "validation", train=None)
# By the column `splits` of the table.
_SPLITS = {
  "": _WITH_VALIDATION,
  "no_validation": spec.Splits(None, "test", **_LIMIT),
  "train": spec.Splits(None, None, **_LIMIT),
  "held_out": _HELD_OUT,
  "test": spec.Splits(None, "test", train=None),
  "dev_r1": spec.Splits(None, "dev_r1", train=None),
  "dev_r2": spec.Splits(None, "dev_r2", train=None),
  "dev_r3": spec.Splits(None, "dev_r3", train=None),
}
# Where TFDS calls the splits otherwise.
_TFDS_SPLITS = {
  "anli": _HELD_OUT,
  "race": spec.Splits("dev", "dev", **_LIMIT),
}
_ADAPTERS = {
  "ag_news": adapters.ag_news,
  "ai2_arc": adapters.ai2_arc,
  "anli": adapters.anli,
  "hellaswag": adapters.hellaswag,
  "openbookqa": adapters.openbookqa,
  "race": adapters.race,
  "story_cloze": adapters.story_cloze,
  "winogrande": adapters.winogrande,
}

# Dataset, subset and round; training rows; TFDS; splits. Under a heading with
# the first mixture that trains on what follows, whether it is evaluated, and
# T0's group.
_TABLE = """
# t0 - paraphrase
glue/mrpc                   3668  glue/mrpc:2.0.0
glue/qqp                  363846  glue/qqp:2.0.0
paws/labeled_final         49401  paws_wiki/labeled_final_tokenized:1.1.0
# t0 - closed_book_qa
kilt_tasks/hotpotqa        88869  -
wiki_qa                    20360  -
# t0 - extractive_qa
adversarial_qa/dbidaf      10000  -
adversarial_qa/dbert       10000  -
adversarial_qa/droberta    10000  -
duorc/SelfRC               60721  -
duorc/ParaphraseRC         69524  -
ropes                      10924  -
quoref                     19399  -
# t0 - multiple_choice_qa
cos_e/v1.11                 9741  cos_e:0.0.1
cosmos_qa                  25262  cosmos_qa:1.0.0
dream                       6116  -
qasc                        8134  qasc:0.1.0
quail                      10246  -
quarel                      1941  -
quartz                      2696  -
sciq                       11679  -
social_i_qa                33410  -
wiki_hop/original          43738  -
wiqa                       29808  -
# t0 - sentiment
amazon_polarity          3600000  -  no_validation
app_reviews               288065  -  train
imdb                       25000  imdb_reviews/plain_text:1.0.0  no_validation
rotten_tomatoes             8530  -
yelp_review_full          650000  -  no_validation
# t0 - structure_to_text
common_gen                 67389  -
wiki_bio                  582659  wiki_bio:0.1.0
# t0 - summarization
cnn_dailymail/3.0.0       287113  cnn_dailymail:3.4.0
gigaword                 3803957  gigaword:1.2.0
multi_news                 44972  multi_news:2.1.0
samsum                     14732  samsum:1.0.0
xsum                      204045  xsum:1.1.0
# t0 - topic_classification
ag_news                   120000  ag_news_subset:1.0.0  no_validation
dbpedia_14                560000  -  no_validation
trec                        5452  trec:1.0.0  no_validation
# t0_plus - closed_book_qa
ai2_arc/ARC-Challenge       1119  ai2_arc/ARC-Challenge:1.0.0
ai2_arc/ARC-Easy            2251  ai2_arc/ARC-Easy:1.0.0
trivia_qa/unfiltered       87622  trivia_qa/unfiltered:1.1.0
web_questions               3778  web_questions:1.0.0  no_validation
# t0_plus - extractive_qa
squad_v2                  130319  squad/v2.0:3.0.0
# t0_plus - multiple_choice_qa
openbookqa/main             4957  openbookqa:0.1.0
race/high                  62445  race/high:2.0.0
race/middle                25421  race/middle:2.0.0
piqa                       16113  piqa:1.0.0
# t0_plus evaluated sentence_completion
hellaswag                  39905  hellaswag:1.1.0
# t0_plus_plus evaluated coreference
super_glue/wsc.fixed         554  super_glue/wsc.fixed:1.0.2
# t0_plus_plus - extractive_qa
super_glue/record         100730  super_glue/record:1.0.2
# t0_plus_plus - multiple_choice_qa
super_glue/boolq            9427  super_glue/boolq:1.0.2
super_glue/multirc         27243  super_glue/multirc:1.0.2
# t0_plus_plus evaluated sentence_completion
super_glue/copa              400  super_glue/copa:1.0.2
# t0_plus_plus evaluated word_sense
super_glue/wic              5428  super_glue/wic:1.0.2
# - evaluated natural_language_inference
super_glue/rte              2490  super_glue/rte:1.0.2  held_out
super_glue/cb                250  super_glue/cb:1.0.2  held_out
anli//r1                   16946  anli/r1:0.1.0  dev_r1
anli//r2                   45460  anli/r2:0.1.0  dev_r2
anli//r3                  100459  anli/r3:0.1.0  dev_r3
# - evaluated coreference
winogrande/winogrande_xl   40398  winogrande:1.2.0  held_out
# - evaluated sentence_completion
story_cloze/2016               0  story_cloze/2016:1.0.0  held_out
# - - bias_and_fairness
super_glue/axg                 0  super_glue/axg:1.0.2  test
crows_pairs                    0  -  test
wino_bias/type1_anti           0  -  held_out
wino_bias/type2_anti           0  -  held_out
wino_bias/type1_pro            0  -  held_out
wino_bias/type2_pro            0  -  held_out
"""


def _row(line: str, trained: str, held_out: bool, group: str) -> Dataset:
  name, rows, where, *splits = line.split()
  dataset, subset, part = (*name.split("/"), "", "")[:3]
  return Dataset(
    dataset=dataset,
    subset=subset or None,
    group=group,
    trained=trained,
    rows=int(rows),
    tfds=None if where == "-" else where,
    adapter=_ADAPTERS.get(dataset, adapters.same),
    held_out=held_out,
    splits=_SPLITS["".join(splits)],
    tfds_splits=_TFDS_SPLITS.get(dataset),
    round=part,
  )


@functools.cache
def all_datasets() -> tuple[Dataset, ...]:
  """Every dataset of T0's list that has prompts, in the table's order."""
  found = []
  for line in _TABLE.strip().splitlines():
    if line.startswith("#"):
      _, trained, role, group = line.split()
      heading = (trained.strip("-"), role == "evaluated", group)
    else:
      found.append(_row(line, *heading))
  return tuple(found)


@functools.cache
def _by_name() -> dict[str, Dataset]:
  return {d.key: d for d in all_datasets()}


def by_name(name: str) -> Dataset:
  """The dataset called `name`.

  >>> by_name("super_glue/rte").held_out
  True

  Raises:
    UserError: T0's list has none; names the nearest.
  """
  check_known("dataset", name, tuple(_by_name()))
  return _by_name()[name]


def training(mixture: str) -> tuple[Dataset, ...]:
  """The datasets that a mixture trains on, in the order of the table.

  >>> [len(training(m)) for m in MIXTURES]
  [38, 48, 54]
  """
  check_known("mixture", mixture, MIXTURES)
  return tuple(d for d in all_datasets() if d.trains(mixture))


def held_out(mixture: str) -> tuple[Dataset, ...]:
  """The evaluation sets that a mixture does not train on.

  >>> [len(held_out(m)) for m in MIXTURES]
  [11, 10, 7]
  """
  check_known("mixture", mixture, MIXTURES)
  return tuple(d for d in evaluated() if not d.trains(mixture))


# What FLAN 2022 has of P3: the datasets that its own list has not (Longpre et
# al., 2023, arXiv 2301.13688, released code); 193 prompts.
_FLAN_2022 = (
  "adversarial_qa", "amazon_polarity", "app_reviews", "cos_e", "dbpedia_14",
  "dream", "duorc", "kilt_tasks", "qasc", "quail", "quarel", "quartz",
  "quoref", "race", "ropes", "sciq", "social_i_qa", "web_questions",
  "wiki_bio", "wiki_hop", "wiki_qa", "wiqa",
)  # fmt: skip


def flan_2022() -> tuple[Dataset, ...]:
  """The datasets that FLAN 2022 takes from P3.

  >>> len(flan_2022())
  26
  """
  return tuple(d for d in all_datasets() if d.dataset in _FLAN_2022)


def evaluated() -> tuple[Dataset, ...]:
  """All eleven evaluation sets, also for a model that trained on some."""
  return tuple(d for d in all_datasets() if d.held_out)
