"""Do two news sentences say the same? (MRPC; Dolan and Brockett, 2005)."""

from flan_jax.data.spec import Splits, Task, last, tfds

TASK = Task(
  name="mrpc",
  paper_name="MRPC",
  source=tfds("glue/mrpc:2.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"sentence1": "sentence1", "sentence2": "sentence2"},
  choices=("no", "yes"),
  label="label",
  templates=(
    ("{sentence1}\n\n{sentence2}\n\nDo these two sentences from news reports say the same thing?\n\n{options}", "{answer}"),
    ("Compare the two sentences below and decide whether the second is a paraphrase of the first.\n\nFirst: {sentence1}\nSecond: {sentence2}\n\n{options}", "{answer}"),
    ("An editor wants to keep only one of the following sentences, on the ground that they report the same facts.\n\n(1) {sentence1}\n(2) {sentence2}\n\nIs the editor right that they do? Answer no or yes.", "{answer}"),
    ("Sentence A: {sentence1}\nSentence B: {sentence2}\nSame meaning (no or yes):", "{answer}"),
    ("Can the second sentence take the place of the first in an article without changing the news?\n\n{options}\n\nThe first: {sentence1}\nThe second: {sentence2}", "{answer}"),
    ("I keep running into different versions of one story. This morning I read:\n{sentence1}\nAnd just now:\n{sentence2}\nAm I being told the same thing twice?\n\n{options}", "{answer}"),
    ("Two sentences are paraphrases when a reader learns the same from either of them. A small difference in detail does no harm, but another event, person or amount does.\n\n{sentence1}\n{sentence2}\n\nAre they paraphrases?\n\n{options}", "{answer}"),
    ("Paraphrase, yes or no?\n\n{sentence1}\n{sentence2}", "{answer}"),
    ("Fill in the blank with one of the options.\n\n{sentence1}\n{sentence2}\n\nDoes the one sentence restate the other? The answer is ___.\n\n{options}", "{answer}"),
    ("Write a sentence for a news report to go with the one below. Should the two mean the same? {answer}\n\n{sentence1}", "{sentence2}"),
  ),
  metrics=("f1_binary", "accuracy"),
  notes=("One template is turned around; the published ten have none.",),
)
