"""Prompts rendered per second of CPU time: compiled once, and at every call.

The peer is PromptSource's way, restated (`tests/data/p3_reference.py`): its
`apply` parses and compiles the prompt and its choices at every call. The
package itself declares Python below 3.10 and needs pandas and `pkg_resources`
to be imported. Both sides give the same texts, which is checked here too.

Needs PromptSource's templates: bash launch/p3.sh.
"""

import random
import statistics
import time

RUNS = 5
ROWS = 2_000
PEER_ROWS = 60
PROMPTS = (
  ("super_glue", "rte", "GPT-3 style"),
  ("imdb", None, "Movie Expressed Sentiment"),
  ("ag_news", None, "classify_question_first"),
  ("qasc", None, "qa_with_separated_facts_1"),
  ("common_gen", None, "Put together"),
)


def run() -> list[dict]:
  from flan_jax.data import p3_prompts, p3_render
  from flan_jax.errors import UserError
  from tests.data import p3_reference as reference

  try:
    folder = p3_prompts.folder()
  except UserError as e:
    return [{"job": "prompts rendered", "note": str(e)}]
  out = []
  for dataset, subset, name in PROMPTS:
    prompts = p3_prompts.load(folder, dataset, subset)
    (prompt,) = [p for p in prompts if p.name == name]
    rows = _rows(dataset)
    ours = p3_render.compiled(prompt)
    env = reference.environment(random.Random(0))
    for row in rows[:PEER_ROWS]:
      assert ours.apply(row) == reference.apply(prompt, row, env)
    own = _rates(lambda row, p=ours: p.apply(row), rows)
    peer = _rates(
      lambda row, p=prompt, e=env: reference.apply(p, row, e), rows[:PEER_ROWS]
    )
    a, b = statistics.median(own), statistics.median(peer)
    out.append(
      {
        "job": f"{p3_prompts.dataset_name(dataset, subset)}: {name}",
        "ours": a,
        "peer": b,
        "unit": "rows/s of CPU",
        "ratio": a / b,
        "runs": RUNS,
        "note": "peer: parsed and compiled at every call",
      }
    )
  return out


def _rates(function, rows) -> list[float]:
  rates = []
  for _ in range(RUNS + 1):
    start = time.process_time()
    for row in rows:
      function(row)
    rates.append(len(rows) / (time.process_time() - start))
  return rates[1:]


def _rows(dataset: str) -> list[dict]:
  draw = random.Random(0)
  words = [f"word{i}" for i in range(500)]

  def text(count):
    return " ".join(draw.choices(words, k=count))

  made = {
    "super_glue": lambda: {
      "premise": text(50), "hypothesis": text(10), "label": draw.randrange(2),
    },
    "imdb": lambda: {"text": text(200), "label": draw.randrange(2)},
    "ag_news": lambda: {"text": text(35), "label": draw.randrange(4)},
    "qasc": lambda: {
      "question": text(8), "fact1": text(8), "fact2": text(8),
      "combinedfact": text(8), "answerKey": draw.choice("ABCDEFGH"),
      "choices": {"text": [text(2) for _ in range(8)],
                  "label": list("ABCDEFGH")},
    },
    "common_gen": lambda: {
      "concepts": draw.choices(words, k=4), "target": text(10),
    },
  }  # fmt: skip
  return [made[dataset]() for _ in range(ROWS)]
