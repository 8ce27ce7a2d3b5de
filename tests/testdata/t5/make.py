"""Writes t5_v1_1.npz: a tiny T5 v1.1 as HF transformers' PyTorch computes it.

  python tests/testdata/t5/make.py

Needs torch and transformers; made with torch 2.13.0, transformers 5.23.0.
Parameters under `params/` have T5X's names; `grads/` has the gradients of the
summed cross-entropy by the same names.
"""

import pathlib

import numpy as np
import torch
import transformers

CONFIG = transformers.T5Config(
  vocab_size=48,
  d_model=16,
  d_kv=6,
  num_heads=3,
  d_ff=24,
  num_layers=2,
  num_decoder_layers=2,
  feed_forward_proj="gated-gelu",
  dropout_rate=0.0,
  decoder_start_token_id=0,
)
ENCODER = (("layer.0.SelfAttention", "layer.0", "attention", "attention"),)
DECODER = (
  ("layer.0.SelfAttention", "layer.0", "self_attention", "self_attention"),
  (
    "layer.1.EncDecAttention",
    "layer.1",
    "encoder_decoder_attention",
    "cross_attention",
  ),
)


def names() -> dict[str, str]:
  """T5X's name -> transformers' name; matrices are transposed."""
  out = {
    "token_embedder/embedding": "shared.weight",
    "decoder/logits_dense/kernel": "lm_head.weight",
  }
  for side, blocks in (("encoder", ENCODER), ("decoder", DECODER)):
    first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    out[f"{side}/relpos_bias/rel_embedding"] = f"{first}.weight"
    out[f"{side}/{side}_norm/scale"] = f"{side}.final_layer_norm.weight"
    for i in range(2):
      ours, theirs = f"{side}/layers_{i}", f"{side}.block.{i}"
      for theirs_attention, layer, attention, norm in blocks:
        pre = f"{ours}/pre_{norm}_layer_norm/scale"
        out[pre] = f"{theirs}.{layer}.layer_norm.weight"
        for kernel in ("query", "key", "value", "out"):
          name = f"{ours}/{attention}/{kernel}/kernel"
          out[name] = f"{theirs}.{theirs_attention}.{kernel[0]}.weight"
      mlp = f"{theirs}.layer.{len(blocks)}"
      out[f"{ours}/pre_mlp_layer_norm/scale"] = f"{mlp}.layer_norm.weight"
      for kernel in ("wi_0", "wi_1", "wo"):
        name = f"{mlp}.DenseReluDense.{kernel}.weight"
        out[f"{ours}/mlp/{kernel}/kernel"] = name
  return out


def main():
  random = np.random.default_rng(0)
  model = transformers.T5ForConditionalGeneration(CONFIG).train()
  # transformers 5 ties T5's head whatever the configuration says, and then
  # scales the decoder's output as T5 v1.0 does.
  model.config.scale_decoder_outputs = False
  model.lm_head.weight = torch.nn.Parameter(torch.zeros(48, 16))
  parameters = dict(model.named_parameters())
  for _, value in sorted(parameters.items()):
    sample = random.standard_normal(value.shape) * 0.25
    if value.ndim == 1:
      sample += 1.0
    value.data[:] = torch.tensor(sample.astype(np.float32))

  inputs = random.integers(2, 48, (3, 40))
  targets = random.integers(2, 48, (3, 9))
  for row, (source, target) in enumerate(((40, 9), (17, 4), (1, 1))):
    inputs[row, source:] = 0
    targets[row, target - 1] = 1
    targets[row, target:] = 0
  decoder_inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
  logits = model(
    input_ids=torch.tensor(inputs),
    attention_mask=torch.tensor(inputs > 0).long(),
    decoder_input_ids=torch.tensor(decoder_inputs),
  ).logits
  loss = torch.nn.functional.cross_entropy(
    logits.flatten(0, 1),
    torch.tensor(targets).flatten(),
    ignore_index=0,
    reduction="sum",
  )
  loss.backward()

  out = {
    "encoder_input_tokens": inputs.astype(np.int32),
    "decoder_input_tokens": decoder_inputs.astype(np.int32),
    "decoder_target_tokens": targets.astype(np.int32),
    "logits": logits.detach().numpy(),
    "loss": loss.detach().numpy(),
  }
  for ours, theirs in names().items():
    value = parameters[theirs]
    keep = ours == "token_embedder/embedding"
    out[f"params/{ours}"] = value.detach().numpy()
    out[f"grads/{ours}"] = value.grad.numpy()
    if not keep:
      out[f"params/{ours}"] = out[f"params/{ours}"].T
      out[f"grads/{ours}"] = out[f"grads/{ours}"].T
  path = pathlib.Path(__file__).with_name("t5_v1_1.npz")
  np.savez_compressed(path, **out)


if __name__ == "__main__":
  main()
