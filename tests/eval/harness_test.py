"""The evaluation harness's own model on an export, and ours on the original,
through the same local tasks."""

import doctest
import json
import os

import jax
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
lm_eval = pytest.importorskip(
  "lm_eval", reason="needs the extra harness: pip install -e '.[harness]'"
)
pytest.importorskip("accelerate", reason="the harness's own model needs it")
tokenizers = pytest.importorskip("tokenizers")

from flan_jax.convert import hf, trees  # noqa: E402
from flan_jax.errors import UserError  # noqa: E402
from flan_jax.eval import harness  # noqa: E402
from flan_jax.models import decoder, t5  # noqa: E402

# Third parties' own.
pytestmark = pytest.mark.filterwarnings("default")

TEXT = (
  "the old ship sails west; what does the crew eat? fresh bread and a little"
  " salted fish, said the cook. which of these is a fruit: pear, stone, rope?"
)
QUESTIONS = (
  ("what does the crew eat?", ("bread", "a stone", "rope and salt"), 0),
  ("which of these is a fruit?", ("pear", "the old ship", "fish"), 0),
  ("what sails west? " * 9, ("the ship", "bread", "the cook, said he"), 0),
  ("who spoke?", ("the cook", "the cook, the cook", "no one"), 0),
)
CASES = ("plain", "with_bos", "t5_1_0", "t5_1_1")
TASKS = {
  "local_choice": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
""",
  "local_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{question}}"
metric_list:
  - metric: word_perplexity
    aggregation: weighted_perplexity
    higher_is_better: false
""",
  "local_answer": """
output_type: generate_until
doc_to_text: "Question: {{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs:
  until: ["zq", "\\n"]
  max_gen_toks: 8
metric_list:
  - metric: bypass
    aggregation: bypass
    higher_is_better: false
""",
}


def tokenizer_files(folder, case):
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  level = tokenizers.pre_tokenizers.ByteLevel
  made.pre_tokenizer = level(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.train_from_iterator(
    [TEXT],
    tokenizers.trainers.BpeTrainer(
      vocab_size=330,
      special_tokens=["<pad>", "<end>", "<begin>"],
      initial_alphabet=level.alphabet(),
      show_progress=False,
    ),
  )
  form = {"with_bos": "<begin> $A", "plain": ""}.get(case, "$A <end>")
  if form:
    made.post_processor = tokenizers.processors.TemplateProcessing(
      single=form, special_tokens=[("<begin>", 2), ("<end>", 1)]
    )
  made.save(str(folder / "tokenizer.json"))
  said = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<end>",
    "pad_token": "<pad>",
  }
  if case in ("plain", "with_bos"):
    said["bos_token"] = "<begin>"
  (folder / "tokenizer_config.json").write_text(json.dumps(said))
  return [folder / "tokenizer.json", folder / "tokenizer_config.json"]


def model_of(case):
  sizes = {
    "vocab_size": 384, "emb_dim": 16, "num_heads": 2, "head_dim": 8,
    "mlp_dim": 32,
  }
  if case == "t5_1_0":
    sizes |= {"mlp_activations": ("relu",), "logits_via_embedding": True}
  if case in ("t5_1_0", "t5_1_1"):
    return t5.EncoderDecoder(
      t5.T5Config(num_encoder_layers=2, num_decoder_layers=2, **sizes)
    )
  return decoder.DecoderOnly(
    decoder.DecoderConfig(num_kv_heads=1, num_layers=2, **sizes)
  )


@pytest.fixture(scope="module", params=CASES)
def export(request, tmp_path_factory):
  """(case, folder): a Hugging Face folder that we wrote, parameters spread."""
  case = request.param
  folder = tmp_path_factory.mktemp(case)
  model = model_of(case)
  params = trees.flatten(model.init(jax.random.key(1)))
  draw = np.random.default_rng(0)
  arrays = {
    n: np.asarray(x) + draw.normal(0, 0.15, x.shape).astype(np.float32)
    for n, x in params.items()
  }
  out = hf.write_hf(
    folder / "hf", model.config, arrays.items(),
    tokenizer_files=tokenizer_files(folder, case),
  )
  return case, str(out)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
  """A task manager that knows the local tasks alone."""
  from lm_eval.tasks import TaskManager

  folder = tmp_path_factory.mktemp("tasks")
  rows = folder / "rows.jsonl"
  rows.write_text(
    "".join(
      json.dumps({"question": q, "choices": c, "label": label}) + "\n"
      for q, c, label in QUESTIONS
    )
  )
  for name, body in TASKS.items():
    (folder / f"{name}.yaml").write_text(
      f"task: {name}\ndataset_path: json\ntest_split: test\n"
      f"dataset_kwargs:\n  data_files:\n    test: {rows}\n"
      f"  cache_dir: {folder / 'cache'}\n{body}"
    )
  return TaskManager(include_path=str(folder), include_defaults=False)


def keep_heads(monkeypatch):
  """`hf` ties weights once more after loading, and transformers 5 has T5 tied
  whatever its config says: T5 v1.1 would lose its head."""
  import transformers

  model = transformers.T5ForConditionalGeneration
  real = model.tie_weights

  def tie_weights(self, *args, **options):
    if args or options:
      real(self, *args, **options)

  monkeypatch.setattr(model, "tie_weights", tie_weights)


def answers(model, tasks):
  found = lm_eval.simple_evaluate(
    model=model, tasks=list(TASKS), task_manager=tasks, bootstrap_iters=0,
    log_samples=True, verbosity="ERROR",
  )
  return {
    name: [s["resps"] for s in sorted(rows, key=lambda s: s["doc_id"])]
    for name, rows in found["samples"].items()
  }


def test_both_give_the_same(export, tasks, monkeypatch):
  from lm_eval.models.huggingface import HFLM

  case, folder = export
  if case == "t5_1_1":
    keep_heads(monkeypatch)
  theirs = HFLM(
    pretrained=folder, device="cpu", dtype="float32", batch_size=3,
    max_length=48, backend="seq2seq" if case.startswith("t5") else "causal",
  )
  ours = harness.adapter()(path=folder, batch_size="3", max_length=48)
  assert ours.prefix_token_id == theirs.prefix_token_id
  expected, found = answers(theirs, tasks), answers(ours, tasks)
  flat = []
  for row, other in zip(
    found["local_choice"], expected["local_choice"], strict=True
  ):
    for ((log_prob, greedy),), ((theirs_p, theirs_greedy),) in zip(
      row, other, strict=True
    ):
      assert float(log_prob) == pytest.approx(float(theirs_p), abs=1e-4)
      assert str(greedy) == str(theirs_greedy)
      flat.append(float(log_prob))
  assert len(flat) == 12
  assert len({round(p, 2) for p in flat}) > 6
  for row, other in zip(
    found["local_text"], expected["local_text"], strict=True
  ):
    assert np.ravel(row).astype(float) == pytest.approx(
      np.ravel(other).astype(float), abs=1e-3
    )
  for row, other in zip(
    found["local_answer"], expected["local_answer"], strict=True
  ):
    ((text,),), ((theirs_text,),) = row, other
    if case.startswith("t5"):
      # `hf` adds the context's length to the limit of an encoder-decoder. A
      # character that the limit cuts is decoded as U+FFFD.
      assert theirs_text.startswith(text.rstrip("\ufffd"))
    else:
      assert text == theirs_text


def request(*args):
  return type("Instance", (), {"args": args})()


def test_a_greedy_continuation_is_told(export):
  _, folder = export
  lm = harness.adapter()(path=folder, max_length=64)
  (text,) = lm.generate_until(
    [request("the old ship", {"max_gen_toks": 3, "until": []})]
  )
  ids = lm.tok_encode(text, add_special_tokens=False)
  context = lm.tok_encode("the old ship")
  scored = lm._loglikelihood_tokens(
    [(None, context, ids), (None, context, [*ids[:-1], (ids[-1] + 1) % 300])]
  )
  if lm.vocabulary.decode(ids) == text and len(ids) == 3:
    assert [greedy for _, greedy in scored] == [True, False]


def test_an_empty_context_and_equal_requests(export):
  _, folder = export
  lm = harness.adapter()(path=folder, max_length=64)
  found = lm.loglikelihood(
    [request("", "the ship"), request("a", " b"), request("", "the ship")]
  )
  assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": "auto"}, "batch_size is 'auto'"),
    ({"max_length": 0}, "max_length is 0"),
    ({"max_batch_size": 8}, "max_batch_size = 8 has no effect"),
    ({"path": "nothing"}, "does not exist"),
  ],
)
def test_what_is_refused(export, options, message):
  _, folder = export
  with pytest.raises(UserError, match=message):
    harness.adapter()(**{"path": folder} | options)


def test_options_of_answers():
  def made(**options):
    return harness.decode_config(options, 8, (1,))

  assert made(until="\n\n", do_sample=False, temperature=0.0).stop_strings == (
    "\n\n",
  )
  assert made(max_new_tokens=3).max_decode_len == 3
  assert made(temperature=0.7, do_sample=False).strategy == "greedy"
  drawn = made(do_sample=True, temperature=0.7, top_p=0.9, top_k=5, seed=1)
  assert (drawn.strategy, drawn.temperature, drawn.seed) == ("sample", 0.7, 1)
  assert made(num_beams=1).strategy == "greedy"
  for bad in ({"num_beams": 4}, {"repetition_penalty": 1.2}):
    with pytest.raises(UserError, match="are not read by the model flan_jax"):
      made(**bad)


def test_no_chat_template(export):
  lm = harness.adapter()(path=export[1])
  with pytest.raises(UserError, match="apply_chat_template has no effect"):
    lm.apply_chat_template([{"role": "user", "content": "Hi"}])


def test_the_command_knows_the_model():
  from lm_eval.api import registry

  harness.register()
  harness.register()
  assert registry.get_model("flan_jax") is harness.adapter()


def test_docstrings():
  assert doctest.testmod(harness).failed == 0
