"""CosmosQA: reading between the lines of a blog post (Huang et al., 2019)."""

from flan_jax.data.spec import Splits, Task, from_features, last, tfds

TASK = Task(
  name="cosmos_qa",
  paper_name="CosmosQA",
  source=tfds("cosmos_qa:1.0.0"),
  splits=Splits(validation=last("train", 200), test="validation"),
  inputs={"context": "context", "question": "question"},
  choices=from_features("answer0", "answer1", "answer2", "answer3"),
  label="label",
  metrics=("accuracy",),
  templates=(
    ("{context}\n\n{question}\n\n{options}", "{answer}"),
    ("Read the passage, then choose the answer that fits it best.\n\nPassage: {context}\n\nQuestion: {question}\n\n{options}", "{answer}"),
    ("Question: {question}\nText: {context}\n{options}\nAnswer:", "{answer}"),
    ("Somebody wrote this in their diary:\n\n{context}\n\nYou know the writer well. {question}\n\n{options}", "{answer}"),
    ("The answer to the question below is not written in the text. Work it out from the text and from what you know about everyday life.\n\n{context}\n\n{question}\n\n{options}", "{answer}"),
    ("{question}\n\n{options}\n\nBase your answer on the following.\n\n{context}", "{answer}"),
    ("Look what I found on a blog:\n\n{context}\n\nSo tell me what you think. {question}\n\n{options}", "{answer}"),
    ("{context}\n\nExplain by one of the options: {question}\n\n{options}", "{answer}"),
    ("{context}\n\nA reader of this text was asked a question, shown these options, and rightly chose the one named last. What was the question?\n\n{options}\n\nChosen: {answer}", "{question}"),
    ("Make up a paragraph from someone's life, so that a reader who is asked the question below rightly chooses the answer named last.\n\nQuestion: {question}\n\n{options}\n\nAnswer: {answer}", "{context}"),
  ),
  notes=("Every template shows the options: one answer in eleven is that none of them fits, which says nothing without them.",),
)
