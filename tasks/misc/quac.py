"""One question out of a talk about a person or thing (QuAC; Choi et al., 2018)."""

import tensorflow as tf

from flan_jax.data.spec import Splits, Task, last, tfds

NONE = "unanswerable"


def prepare(row):
  """The mark of the source for "no answer" becomes a word, and leaves the text.

  >>> prepare({"context": "It closed in 1966. CANNOTANSWER",
  ...          "orig_answer": {"text": "CANNOTANSWER", ...},
  ...          "answers": {"text": ["in 1966", "CANNOTANSWER"], ...}, ...})  # doctest: +SKIP
  {"context": "It closed in 1966.", "target": "unanswerable",
   "accepted": ["in 1966", "unanswerable"], ...}
  """

  def spoken(texts):
    return tf.where(tf.equal(texts, "CANNOTANSWER"), NONE, texts)

  return {
    "title": row["title"],
    "section": row["section_title"],
    "background": row["background"],
    "context": tf.strings.regex_replace(row["context"], r"\s*CANNOTANSWER$", ""),
    "question": tf.strings.strip(row["question"]),
    "target": spoken(row["orig_answer"]["text"]),
    "accepted": spoken(row["answers"]["text"]),
  }


TASK = Task(
  name="quac",
  paper_name="QuAC",
  source=tfds("quac:1.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  prepare=prepare,
  inputs={
    "title": "title",
    "section": "section",
    "background": "background",
    "context": "context",
    "question": "question",
  },
  target="target",
  references="accepted",
  templates=(
    ("{background}\n\n{context}\n\n{question}\n\nSay \"unanswerable\" if this is not in the text.", "{target}"),
    ("Answer with a passage of the article, or with unanswerable.\n\nArticle: {title}\nSection: {section}\n\n{context}\n\nQuestion: {question}", "{target}"),
    ("{background}\n{section}: {context}\nQ: {question}\nA (unanswerable if unknown):", "{target}"),
    ("A student knows only the following about {title}: {background} The teacher has the section \"{section}\" of an encyclopedia and answers the student's questions by quoting from it. To a question that it leaves open the teacher says \"unanswerable\".\n\n{context}\n\nStudent: {question}\nTeacher:", "{target}"),
    ("The question below was asked in the course of a conversation about {title}, so a word such as \"he\" or \"it\" may refer to the subject of the text. Quote what answers it. If nothing does, reply unanswerable.\n\n{context}\n\n{question}", "{target}"),
    ("We were talking about {title}, and somebody wanted to know: {question} Here is what I have on it. Is the answer in there? If not, just write unanswerable.\n\n{context}", "{target}"),
    ("{question}\n\nFind the part of the text that tells, and copy it; for want of one, write unanswerable.\n\nText ({title}, {section}):\n{context}", "{target}"),
    ("{title}\n\n{background}\n\n{section}\n\n{context}\n\nA reader of this article asks: {question} Give the words of the article that reply to it, or \"unanswerable\" for none.", "{target}"),
    ("Background: {background}\nSource: {context}\nAsked: {question}\nQuoted from the source, or unanswerable: ___", "{target}"),
    ("Look through the section \"{section}\" for a reply to the question, and take it over word for word. Should there be none, the reply is unanswerable.\n\nQuestion: {question}\n\n{context}", "{target}"),
  ),
  metrics=("quac",),
  notes=(
    "All answers of the annotators are accepted; the published metric compares characters and is always wrong.",
    'The mark CANNOTANSWER is cut from the text, and the target is "unanswerable" in its place.',
    "A question stands alone, as in the published form; TFDS's rows do not hold the turns before it.",
    "No template is turned around, as one answer in five is no text; two of the published ten are.",
  ),
)
