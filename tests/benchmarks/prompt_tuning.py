"""A step of prompt tuning beside one of full tuning; 8 prompts beside one.

  python -m tests.benchmarks prompt_tuning

T5 v1.1 small (77M parameters: emb 512, 6 heads x 64, mlp 1024, 8+8 layers,
vocabulary 32,128), 8 rows of 256/64 tokens, float32, no dropout, Adafactor, a
prompt of 10 vectors. Both steps are `training/step.py: train_step`, taken in
turn in one process and compared by CPU time. `flops` rows are XLA's own counts
of the compiled programs.
"""

import functools
import pathlib
import statistics
import tempfile
import time

ROWS, INPUTS, TARGETS, LENGTH, PROMPTS = 8, 256, 64, 10, 8
WARM_UP, RUNS = 1, 5


def _model():
  from flan_jax.models import t5

  return t5.EncoderDecoder(
    t5.T5Config(
      vocab_size=32128,
      emb_dim=512,
      num_heads=6,
      head_dim=64,
      mlp_dim=1024,
      num_encoder_layers=8,
      num_decoder_layers=8,
      dropout_rate=0.0,
      scan_layers=True,
    )
  )


def _batch():
  import numpy as np

  random = np.random.default_rng(0)
  inputs_BS = random.integers(2, 32_000, (ROWS, INPUTS)).astype(np.int32)
  targets_BT = random.integers(2, 32_000, (ROWS, TARGETS)).astype(np.int32)
  return {
    "encoder_input_tokens": inputs_BS,
    "decoder_input_tokens": np.pad(targets_BT[:, :-1], ((0, 0), (1, 0))),
    "decoder_target_tokens": targets_BT,
    "decoder_loss_weights": np.ones(targets_BT.shape, np.float32),
  }


def steps(base, batch):
  """(name -> compiled step and its state) of full and of prompt tuning."""
  import jax

  from flan_jax.models.soft_prompt import SoftPrompt
  from flan_jax.training import optimiser, state, step, trainable
  from flan_jax.training.loss import LossConfig

  model = SoftPrompt(base, LENGTH)
  params = model.init(jax.random.key(0))
  trained, frozen = trainable.split(params, model.trainable)
  take = functools.partial(step.train_step, loss_config=LossConfig())
  slow = optimiser.adafactor(1e-3)
  fast = optimiser.adafactor(
    0.3, multiply_by_parameter_scale=False, factored=False
  )

  def full(now, batch):
    return take(now, batch, model=base, optimiser=slow)

  def prompt(now, batch):
    bound = trainable.Bound(model, frozen)
    return take(now, batch, model=bound, optimiser=fast)

  whole = {name: x for name, x in params.items() if name in frozen}
  out = {}
  for name, function, own, by in (
    ("full", full, jax.tree.map(lambda x: x + 0, whole), slow),
    ("prompt", prompt, trained, fast),
  ):
    now = state.create(own, by)
    compiled = jax.jit(function, donate_argnums=0).lower(now, batch).compile()
    out[name] = compiled, now
  return out


def flops(compiled) -> float:
  """Floating-point operations of a compiled program, as XLA counts them."""
  cost = compiled.cost_analysis()
  cost = cost[0] if isinstance(cost, list) else cost
  return cost["flops"]


def _saved_bytes(state) -> int:
  from flan_jax.training import checkpoint

  with tempfile.TemporaryDirectory() as folder:
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(1, state, {}, final=True)
    checkpoints.close()
    files = pathlib.Path(folder).rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def _in_turn(functions):
  """The median CPU time of each of several functions, in seconds."""
  times = {name: [] for name in functions}
  for run in range(WARM_UP + RUNS):
    for name, function in functions.items():
      start = time.process_time()
      function()
      if run >= WARM_UP:
        times[name].append(time.process_time() - start)
  return {name: statistics.median(x) for name, x in times.items()}


def _inference(base):
  """Functions that score 4 answers to each row, with one prompt and with 8."""
  import jax
  import numpy as np

  from flan_jax.models.soft_prompt import SoftPrompt

  random = np.random.default_rng(1)
  inputs_BS = random.integers(2, 32_000, (PROMPTS, INPUTS)).astype(np.int32)
  choices = random.integers(2, 32_000, (PROMPTS, 4, 4)).astype(np.int32)
  one = SoftPrompt(base, LENGTH)
  pool = SoftPrompt(base, LENGTH, tuple(f"task_{n}" for n in range(PROMPTS)))
  mixed = pool.chosen(inputs_BS, np.arange(PROMPTS))
  out = {}
  for name, model, inputs in (("one", one, inputs_BS), ("eight", pool, mixed)):
    params = model.init(jax.random.key(0))

    @jax.jit
    def score(params, inputs, model=model):
      return model.score(params, model.encode(params, inputs), choices)

    out[name] = functools.partial(_done, score, params, inputs)
  return out


def _done(function, *args):
  import jax

  jax.block_until_ready(function(*args))


def run() -> list[dict]:
  import jax

  base, batch = _model(), _batch()
  made = steps(base, batch)
  held = {name: now for name, (_, now) in made.items()}

  def take(name):
    held[name], _ = made[name][0](held[name], batch)
    jax.block_until_ready(held[name])

  taken = _in_turn({n: functools.partial(take, n) for n in made})
  counted = {name: flops(compiled) for name, (compiled, _) in made.items()}
  slots = sum(x.nbytes for x in jax.tree.leaves(held["prompt"].opt_state))
  size = _saved_bytes(held["prompt"])
  served = _in_turn(_inference(base))

  def row(job, ours, peer, unit, note, runs=RUNS):
    ratio = ours / peer
    return {
      "job": job, "ours": ours, "peer": peer, "unit": unit, "ratio": ratio,
      "runs": runs, "note": note,
    }  # fmt: skip

  return [
    row("step: prompt / full tuning", taken["prompt"], taken["full"],
        "s of CPU", "at most 0.75"),
    row("step: prompt / full tuning", counted["prompt"] / 1e9,
        counted["full"] / 1e9, "GFLOP", "as XLA counts", 1),
    row("optimiser state / 1 MB", slots / 1e6, 1.0, "MB", "less than 1", 1),
    row("checkpoint / 1 MB", size / 1e6, 1.0, "MB", "less than 1", 1),
    row("8 prompts in a batch / one", served["eight"], served["one"],
        "s of CPU", "at most 1.1"),
  ]  # fmt: skip
