"""Prompts of chain-of-thought tasks that ask for the question or the rationale.

Every dataset of chains of thought has the same (Longpre et al., 2023, arXiv
2301.13688, section 3.3; the released code has 18 for all of them, of the same
four kinds).
"""

INVERSIONS = (
  # The question, from rationale and answer.
  ("An answer and the reasoning that led to it are below. Write the question.\n\nReasoning: {rationale}\nAnswer: {target}", "{question}"),
  ("{rationale}\n\nThat is how somebody came to say \"{target}\". What had they been asked?", "{question}"),
  ("Solution: {rationale}\nResult: {target}\nProblem:", "{question}"),
  ("A teacher has the worked solution to a problem and has lost the problem itself. Reconstruct it.\n\n{rationale}\n\nFinal answer: {target}", "{question}"),
  # The rationale, from question and answer.
  ("{question}\n\nThe answer is {target}. Explain why.", "{rationale}"),
  ("Question: {question}\nAnswer: {target}\nReasoning that leads from the one to the other:", "{rationale}"),
  ("My friend and I looked up the answer to this and do not see how one gets there.\n\n{question}\n\nIt is {target}, the book says. How so?", "{rationale}"),
  ("Justify the answer that is given below.\n\nAnswer: {target}\nQuestion: {question}", "{rationale}"),
  ("Write the missing steps.\n\nFrom: {question}\nSteps: ___\nTo: {target}", "{rationale}"),
  # Question and answer, from the rationale.
  ("Which question does this line of reasoning settle, and with what answer?\n\n{rationale}", "Question: {question}\nAnswer: {target}"),
  ("Read the explanation, then write the question that it explains and under it the answer.\n\n{rationale}", "{question}\n\n{target}"),
  ("{rationale}\n\nMake a question and its answer out of this.", "{question}\nThe answer is {target}."),
  # Question and rationale, from the answer.
  ("Think of a question to which the answer is \"{target}\", and show how one finds it.", "{question}\n\n{rationale}"),
  ("Answer: {target}\nWrite a question with this answer and, after it, the reasoning.", "Question: {question}\nReasoning: {rationale}"),
)
