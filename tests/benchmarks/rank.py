"""Rank classification beside the usual way: every pair through the whole model.

  python -m tests.benchmarks rank

T5 v1.1 of 26M parameters, 3 choices of 2, 4 and 7 tokens, inputs of 250; and a
Llama of 32M parameters, 4 choices of 2 to 7 tokens behind a prefix of 250. The
peer is `transformers` on PyTorch, which reads the input again for each choice,
as T0's evaluation script does; its logits are made for the choices' tokens
alone. Same weights, float32, 16 examples at a time, both with THREADS threads.

The two sides are two processes that score in turn, and their scores must agree
to 1e-4. On a machine with other work the ratio of processor times says more
than that of the clock; the note has it.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types

EXAMPLES, BATCH, LENGTH = 64, 16, 250
THREADS = int(os.environ.get("THREADS", "2"))
WARM_UP, RUNS = 1, 5
VOCABULARY = 32128
CHOICES = {"t5": (2, 4, 7), "llama": (2, 4, 6, 7)}


def _examples(kind: str):
  """(input, choices) of every example, as lists of ids."""
  import numpy as np

  random = np.random.default_rng(0)

  def tokens(count):
    return random.integers(10, VOCABULARY, count).tolist()

  return [
    (tokens(LENGTH), [[*tokens(n - 1), 1] for n in CHOICES[kind]])
    for _ in range(EXAMPLES)
  ]


def save(kind: str, folder: str):
  """Writes the model that both sides read."""
  import torch
  import transformers

  torch.manual_seed(0)
  if kind == "t5":
    config = transformers.T5Config(
      vocab_size=VOCABULARY, d_model=256, d_kv=32, d_ff=1024, num_heads=8,
      num_layers=4, num_decoder_layers=4, feed_forward_proj="gated-gelu",
      tie_word_embeddings=False, decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config)
    # transformers 5 ties the head to the embedding whatever the config says.
    head = 0.05 * torch.randn(VOCABULARY, config.d_model)
    model.lm_head.weight = torch.nn.Parameter(head)
  else:
    config = transformers.LlamaConfig(
      vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408,
      num_hidden_layers=5, num_attention_heads=8, num_key_value_heads=8,
      tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
  model.save_pretrained(folder)
  if kind == "t5":
    path = pathlib.Path(folder, "config.json")
    said = {**json.loads(path.read_text()), "tie_word_embeddings": False}
    said.pop("scale_decoder_outputs", None)
    path.write_text(json.dumps(said))


def ours(kind: str, folder: str):
  """A function that scores all choices of all examples."""
  import numpy as np

  from flan_jax.convert import load, source
  from flan_jax.eval import rank

  opened = source.open_source(folder)
  model = load.model_of(opened)
  params = load.load_params(opened, model)
  examples = [
    types.SimpleNamespace(
      inputs=np.array(inputs, np.int32),
      choices=tuple(np.array(c, np.int32) for c in choices),
      label=0, task="benchmark", template=0, index=index,
    )
    for index, (inputs, choices) in enumerate(_examples(kind))
  ]

  def run():
    lengths = {"inputs": 512, "targets": 8}
    scored = rank.rank(
      model, params, examples, batch_size=BATCH, lengths=lengths
    )
    return [s.by_score["sum"] for s in scored]

  return run


def peer(kind: str, folder: str):
  """The same with PyTorch, every pair by itself."""
  import safetensors.torch
  import torch
  import transformers

  torch.set_num_threads(THREADS)
  name = "T5ForConditionalGeneration" if kind == "t5" else "LlamaForCausalLM"
  model = getattr(transformers, name).from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  if kind == "t5":
    file = os.path.join(folder, "model.safetensors")
    head = safetensors.torch.load_file(file)["lm_head.weight"]
    model.lm_head.weight = torch.nn.Parameter(head)
  examples = _examples(kind)
  longest = max(CHOICES[kind])

  def pairs(part):
    inputs, labels = [], []
    for tokens, choices in part:
      for choice in choices:
        inputs.append(tokens)
        labels.append(choice + [-100] * (longest - len(choice)))
    return torch.tensor(inputs), torch.tensor(labels)

  def logits_of(inputs, labels):
    if kind == "t5":
      return model(input_ids=inputs, labels=labels).logits
    # Padding behind a choice is seen by nothing that is scored.
    whole = torch.cat([inputs, labels.clamp(min=0)], dim=1)
    return model(whole, logits_to_keep=longest + 1).logits[:, :-1]

  def run():
    out = []
    with torch.inference_mode():
      for start in range(0, EXAMPLES, BATCH):
        inputs, labels = pairs(examples[start : start + BATCH])
        log_probs = torch.log_softmax(logits_of(inputs, labels), dim=-1)
        picked = log_probs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        scores = (picked * (labels >= 0)).sum(-1)
        out += scores.reshape(-1, len(CHOICES[kind])).tolist()
    return out

  return run


def _worker(side: str, kind: str, folder: str):
  score = {"ours": ours, "peer": peer}[side](kind, folder)
  print("ready", flush=True)
  for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    scores = score()
    answer = {
      "wall": time.perf_counter() - wall,
      "cpu": time.process_time() - cpu,
      "scores": scores,
    }
    print(json.dumps(answer), flush=True)


def _start(side: str, kind: str, folder: str) -> subprocess.Popen:
  peer_python = os.environ.get("PEER_PYTHON", sys.executable)
  return subprocess.Popen(
    [
      peer_python if side == "peer" else sys.executable,
      "-m", "tests.benchmarks.rank", side, kind, folder,
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={
      **os.environ, "OMP_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu",
    },
  )


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; ratio > 1: faster."""
  jobs = {
    "t5": "ranking 3 choices, inputs of 250, T5 of 26M, float32",
    "llama": "ranking 4 choices, prefix of 250, Llama of 32M, float32",
  }
  rows = []
  for kind, job in jobs.items():
    with tempfile.TemporaryDirectory() as folder:
      save(kind, folder)
      rows.append({"job": job, **_run(kind, folder)})
  return rows


def _run(kind: str, folder: str) -> dict:
  import numpy as np

  sides = {side: _start(side, kind, folder) for side in ("ours", "peer")}
  seen = {side: [] for side in sides}
  try:
    for side, process in sides.items():
      if process.stdout.readline().strip() != "ready":
        raise RuntimeError(
          f"the {side} side of the ranking benchmark did not start; PyTorch and"
          " transformers are in the extra `test`, or name the Python of another"
          " environment in PEER_PYTHON."
        )
    for _ in range(WARM_UP + RUNS):
      for side, process in sides.items():
        process.stdin.write("score\n")
        process.stdin.flush()
        seen[side].append(json.loads(process.stdout.readline()))
  finally:
    for process in sides.values():
      process.stdin.close()
      process.wait()
  scores = {side: np.array(x[-1]["scores"]) for side, x in seen.items()}
  difference = float(np.abs(scores["ours"] - scores["peer"]).max())
  np.testing.assert_allclose(scores["ours"], scores["peer"], rtol=1e-4)

  def rate(side, clock):
    return EXAMPLES / statistics.median(x[clock] for x in seen[side][WARM_UP:])

  cpu = rate("ours", "cpu") / rate("peer", "cpu")
  return {
    "ours": rate("ours", "wall"),
    "peer": rate("peer", "wall"),
    "unit": "examples/s",
    "ratio": rate("ours", "wall") / rate("peer", "wall"),
    "runs": RUNS,
    "note": (
      f"transformers, each pair in full; processor time {cpu:.2f} x; scores"
      f" differ by {difference:.1g} nats at most"
    ),
  }


if __name__ == "__main__":
  _worker(*sys.argv[1:])
