"""A model whose scores are known by hand, and examples as the data side makes
them. It counts what is traced, which is what is compiled."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from flan_jax.data.evaluation import EvalExample


@dataclasses.dataclass(eq=False)
class CountingModel:
  """Scores of a choice are its tokens' negatives, plus the input's sum / 1000.

  `encoded_shapes` gets one entry per traced (compiled) encoder call.
  """

  encoded_shapes: list = dataclasses.field(default_factory=list)
  nan_token: int = -2
  kind: str = "encoder_decoder"

  def encode(self, params, tokens_BS):
    self.encoded_shapes.append(tokens_BS.shape)
    return jnp.sum(jnp.maximum(tokens_BS, 0), axis=-1) / 1000 * params

  def score(self, params, encoded_B, choices_BCT):
    log_prob = -jnp.maximum(choices_BCT, 0).astype(jnp.float32)
    log_prob = jnp.where(choices_BCT == self.nan_token, jnp.nan, log_prob)
    first_T = jnp.arange(choices_BCT.shape[-1]) == 0
    return log_prob + encoded_B[:, None, None] * first_T


def example(
  inputs,
  choices=(),
  label=0,
  *,
  task="toy",
  template=0,
  index=0,
  texts=None,
  references=("reference",),
):
  """An example from plain token lists; EOS is added."""
  choices = tuple(np.array([*c, 1], np.int32) for c in choices)
  return EvalExample(
    task=task,
    template=template,
    index=index,
    inputs=np.array([*inputs, 1], np.int32),
    inputs_text=f"prompt {index}",
    choices=choices,
    choices_text=tuple(texts or (f"choice {i}" for i in range(len(choices)))),
    label=label if choices else -1,
    targets=np.array([3, 1], np.int32),
    targets_text="target",
    references=tuple(references),
  )
