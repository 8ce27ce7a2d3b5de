"""The recipes of supervised tuning: their published numbers, and short runs."""

import json

import numpy as np
import pytest

from flan_jax import config
from flan_jax.convert import load
from flan_jax.data import sft as sft_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from tests.conftest import ROOT

RECIPES = (
  "sft_instructgpt", "sft_alpaca", "sft_lima", "sft_dolly", "response_tuning",
  "single_task_gsm", "sft_dolly_smollm2",
)  # fmt: skip


def job(name, *flags):
  """A recipe's configuration; nothing is built."""
  flags = {"SFT_FILES": "rows.jsonl", **dict(flags)}
  return config.load([f"gin/{name}.gin"], list(flags.items()), [str(ROOT)])


def options_of(name, *flags):
  """What the job would be given."""
  return config.job_arguments(job(name, *flags))[1]


def cosine(peak, steps, warmup, floor):
  """Warm-up in a line, then half a cosine, with plain numpy."""

  def rate(step):
    if step < warmup:
      return peak * step / warmup
    done = min(1.0, (step - warmup) / (steps - warmup))
    return floor + (peak - floor) * (1 + np.cos(np.pi * done)) / 2

  return rate


def line(peak, steps, floor):
  return lambda step: peak + (floor - peak) * min(1.0, step / steps)


@pytest.mark.parametrize(
  ("name", "flags", "rate"),
  [
    ("sft_instructgpt", {"TRAIN_STEPS": 6363},
     cosine(9.65e-6, 6363, 0, 9.65e-7)),
    ("sft_alpaca", {"TRAIN_STEPS": 1218, "WARMUP_STEPS": 37},
     cosine(2e-5, 1218, 37, 0)),
    ("sft_lima", {"TRAIN_STEPS": 469}, line(1e-5, 469, 1e-6)),
    ("sft_dolly", {"TRAIN_STEPS": 67, "WARMUP_STEPS": 2},
     cosine(2e-5, 67, 2, 0)),
    ("response_tuning", {"TRAIN_STEPS": 81, "WARMUP_STEPS": 8},
     cosine(1e-5, 81, 8, 0)),
  ],
)  # fmt: skip
def test_published_learning_rates(name, flags, rate):
  options = options_of(name, *((k, str(v)) for k, v in flags.items()))
  steps = flags["TRAIN_STEPS"]
  for step in (0, 1, steps // 3, steps // 2, steps - 1, steps):
    ours = float(options["optimizer"].learning_rate(step))
    assert ours == pytest.approx(rate(step), rel=2e-4, abs=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_a_misspelt_macro_is_an_error(name):
  with pytest.raises(UserError, match="nothing uses the macro SFT_FILE"):
    job(name, ("SFT_FILE", "x"))


# The last one needs its checkpoint's vocabulary.
@pytest.mark.parametrize("name", RECIPES[:-1])
def test_files_have_to_be_given(name):
  loaded = config.load([f"gin/{name}.gin"], [], [str(ROOT)])
  data = config.job_arguments(loaded)[1]["task_collection"]
  with pytest.raises(UserError, match="SFT_FILES is not set"):
    _ = data.read


def test_residual_dropout_of_the_two_papers():
  options = options_of("sft_instructgpt")
  assert options["model"].config.residual_rates == (0.2,) * 4
  assert options["model"].config.dropout_rate == 0
  options = options_of("sft_lima")
  rates = options["model"].config.residual_rates
  np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3])
  options = options_of("sft_lima", ("RESIDUAL_DROPOUT", "(0.0, 0.2)"))
  assert options["model"].config.residual_rates[-1] == pytest.approx(0.2)


def test_lima_ends_every_utterance_with_a_token_of_its_own(tmp_path):
  rows = [{"messages": [
    {"role": "user", "content": "Say it."},
    {"role": "assistant", "content": "It."},
    {"role": "user", "content": "Again."},
    {"role": "assistant", "content": "It, again."},
  ]}]  # fmt: skip
  path = tmp_path / "rows.jsonl"
  path.write_text("\n".join(map(json.dumps, rows * 4)))
  options = options_of("sft_lima", ("SFT_FILES", str(path)))
  vocabulary = options["vocabulary"]
  data = options["task_collection"].for_model("decoder_only")
  eos, eot = vocabulary_lib.end_ids(vocabulary)
  record = sft_lib.sft_files.read([str(path)])[0][0]
  (example,) = data.maker(vocabulary, {}).examples([record])
  ids = [*example.inputs, *example.targets]
  assert vocabulary.decode(ids) == (
    "Say it.<|eot_id|>It.<|eot_id|>Again.<|eot_id|>It, again.<|eot_id|>"
  )
  assert (ids.count(eot), ids.count(eos), ids[-1]) == (4, 0, eot)
  # In the loss: both answers, each with its mark.
  trained = example.targets[example.weights.astype(bool)]
  assert vocabulary.decode(trained.tolist()) == "It.<|eot_id|>It, again.<|eot_id|>"


def test_response_tuning_has_no_word_of_the_instructions(tmp_path):
  path = tmp_path / "rows.jsonl"
  rows = [
    {"instruction": f"Tell me of {n}.", "input": "plums", "output": f"{n} so"}
    for n in range(40)
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  options = options_of(
    "response_tuning", ("SFT_FILES", str(path)), ("SFT_HELD_OUT", "0.3")
  )
  data = options["task_collection"].for_model("decoder_only")
  rows, _ = data.read
  examples = data.maker(options["vocabulary"], {}).examples(rows["train"])
  assert {e.inputs_text for e in examples} == {"<|user|>\n\n<|assistant|>\n"}
  asked = data.maker(options["vocabulary"], {}).prompts(rows["test"])
  assert all("Tell me of" in e.inputs_text for e in asked)


def test_gsm_takes_the_first_thousand_rows(tmp_path, shared):
  lines = (shared / "cot" / "gsm8k_train.tsv").read_text().splitlines()[:1200]
  rows = []
  for fields in (text.split("\t") for text in lines):
    answer = f"{fields[2]}\n#### {fields[1]}"
    rows.append({"question": fields[0], "answer": answer})
  path = tmp_path / "train.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  options = options_of(
    "single_task_gsm",
    ("SFT_FILES", str(path)),
    ("SFT_EVAL_FILES",
     str(shared / "instructions" / "user_oriented_instructions_eval.jsonl")),
    ("SFT_HELD_OUT", "0"),
  )  # fmt: skip
  data = options["task_collection"]
  assert [r.line for r in data.read[0]["train"]] == list(range(1, 1001))
  assert len(data.read[0]["test"]) == 252


USERS = [
  {
    "instruction": f"Name fruit number {i} of user {i % 12}.",
    "output": f"Fruit {i}.",
    "user_id": f"u{i % 12}",
  }
  for i in range(60)
]


@pytest.mark.slow
def test_instructgpt_from_rows_to_report(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text("\n".join(map(json.dumps, USERS)))
  flags = {
    "SFT_FILES": path, "MODEL_DIR": tmp_path / "run", "TRAIN_STEPS": 2,
    "SFT_HELD_OUT": 0.3, "EVAL_EXAMPLES": 2, "COMPILATION_CACHE": None,
    "TASK_FEATURE_LENGTHS": {"inputs": 24, "targets": 16},
    "decoder.DecoderConfig.num_layers": 2, "LOG_PERIOD": 1,
    "decoder.DecoderConfig.emb_dim": 16,
  }  # fmt: skip
  loaded = config.load(
    ["gin/sft_instructgpt.gin"],
    [(k, str(v)) for k, v in flags.items()],
    [str(ROOT)],
  )
  folder = config.call_job(loaded)
  report = (folder / "report.md").read_text()
  assert "rougeL" in report
  source = load.opened(str(folder))
  assert source.config.residual_dropout == 0.2
