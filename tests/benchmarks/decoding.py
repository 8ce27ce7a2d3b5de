"""Our greedy decoding beside `transformers.generate`, same weights and prompts.

  python -m tests.benchmarks decoding

SmolLM2-135M's shape (emb 576, 30 layers, 9 heads of 64 and 3 of keys, mlp 1536,
vocabulary 49,152 tied) with random weights, 8 prompts of 17 to 64 tokens, 64
new tokens each, float32, a cache on both sides, 2 threads on a side. The two
sides are two processes that decode in turn, so that whatever else the machine
does falls on both; both must give the same tokens.

A call has 109 GFLOP of matrix products in its prompts (as padded) and 136 in
its new tokens, attention left out; each of the 63 steps reads 0.54 GB of
weights.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROWS, LONGEST, NEW = 8, 64, 64
THREADS = 2
WARM_UP, RUNS = 1, 5
VOCABULARY = 49152


def _prompts():
  import numpy as np

  random = np.random.default_rng(0)
  lengths = np.linspace(17, LONGEST, ROWS).astype(int)
  return [random.integers(10, VOCABULARY, n).tolist() for n in lengths]


def save(folder: str):
  """Writes the model that both sides read."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rope_theta=100_000.0,
    tie_word_embeddings=True,
    # Larger than for training, so that the likeliest token is so by far.
    initializer_range=0.05,
  )
  transformers.LlamaForCausalLM(config).save_pretrained(folder)


def ours(folder: str):
  """A function that decodes the prompts and returns the new tokens."""
  import numpy as np

  from flan_jax.convert import load, source
  from flan_jax.models import decoding
  from flan_jax.models.decoder import DecoderOnly
  from flan_jax.models.decoding_config import DecodeConfig

  opened = source.open_source(folder)
  model = DecoderOnly(opened.config)
  params = load.load_params(opened, model)
  inputs_BS = np.full((ROWS, LONGEST), -1, np.int32)
  for row, tokens in zip(inputs_BS, _prompts(), strict=True):
    row[: len(tokens)] = tokens
  config = DecodeConfig(max_decode_len=NEW)

  def run():
    decoded = decoding.decode(model, params, inputs_BS, config)
    return decoded.tokens_BKT[:, 0].tolist()

  return run


def peer(folder: str):
  """The same with PyTorch."""
  import torch
  import transformers

  torch.set_num_threads(THREADS)
  model = transformers.LlamaForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="sdpa"
  ).eval()
  tokens_BS = torch.zeros((ROWS, LONGEST), dtype=torch.long)
  mask_BS = torch.zeros_like(tokens_BS)
  for row, tokens in enumerate(_prompts()):
    tokens_BS[row, -len(tokens) :] = torch.tensor(tokens)
    mask_BS[row, -len(tokens) :] = 1
  greedy = transformers.GenerationConfig(
    max_new_tokens=NEW, do_sample=False, pad_token_id=0, use_cache=True
  )

  def run():
    with torch.inference_mode():
      out = model.generate(
        tokens_BS, attention_mask=mask_BS, generation_config=greedy
      )
    return out[:, LONGEST:].tolist()

  return run


def _worker(side: str, folder: str):
  decode = {"ours": ours, "peer": peer}[side](folder)
  print("ready", flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    tokens = decode()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)


def _start(side: str, folder: str) -> subprocess.Popen:
  # A virtual environment of its own for PyTorch can be named.
  peer_python = os.environ.get("PEER_PYTHON", sys.executable)
  return subprocess.Popen(
    [
      peer_python if side == "peer" else sys.executable,
      "-m", "tests.benchmarks.decoding", side, folder,
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
  )


def run() -> list[dict]:
  """Rows with `job, ours, peer, unit, ratio, runs, note`; ratio > 1: faster."""
  with tempfile.TemporaryDirectory() as folder:
    save(folder)
    return _run(str(pathlib.Path(folder)))


def _run(folder: str) -> list[dict]:
  sides = {side: _start(side, folder) for side in ("ours", "peer")}
  seconds: dict[str, list[float]] = {side: [] for side in sides}
  tokens = {}
  try:
    for side, process in sides.items():
      if process.stdout.readline().strip() != "ready":
        raise RuntimeError(
          f"the {side} side of the decoding benchmark did not start; PyTorch"
          " and transformers are in the extra `test`, or name the Python of"
          " another environment in PEER_PYTHON."
        )
    for i in range(WARM_UP + RUNS):
      for side, process in sides.items():
        process.stdin.write("decode\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        tokens[side] = answer["tokens"]
        if i >= WARM_UP:
          seconds[side].append(answer["seconds"])
  finally:
    for process in sides.values():
      process.stdin.close()
      process.wait()
  if tokens["ours"] != tokens["peer"]:
    raise RuntimeError("the two sides decoded different tokens")
  count = ROWS * NEW
  rate = {side: count / statistics.median(x) for side, x in seconds.items()}
  best = {side: count / min(x) for side, x in seconds.items()}
  return [
    {
      "job": "greedy decoding, SmolLM2-135M's shape, 8 x 64 new, float32",
      "ours": rate["ours"],
      "peer": rate["peer"],
      "unit": "tokens/s",
      "ratio": rate["ours"] / rate["peer"],
      "runs": RUNS,
      "note": (
        "transformers.generate, equal tokens; ratio of fastest"
        f" {best['ours'] / best['peer']:.2f}"
      ),
    }
  ]


if __name__ == "__main__":
  _worker(*sys.argv[1:])
