"""What a user says of a soft prompt, and the model that this makes.

Gin binds it: gin/adapters/soft_prompt.gin.
"""

import dataclasses
from typing import Any

from flan_jax.models import prompt_start
from flan_jax.models.soft_prompt import SoftPrompt


@dataclasses.dataclass(frozen=True)
class PromptTuning:
  """What gin/adapters/soft_prompt.gin says; `on` puts it before a model.

  Attributes:
    length: of each prompt, from 1 to 150.
    side: see `SoftPrompt`.
    reparameterisation: see `SoftPrompt`.
    init: one of `prompt_start.KINDS`.
    class_labels, text, path: see `prompt_start.of`.
  """

  length: int = 10
  side: str | None = None
  reparameterisation: int = 0
  init: str = "vocabulary"
  class_labels: tuple[str, ...] | None = None
  text: str | None = None
  path: str | None = None

  def on(self, model: Any, vocabulary: Any = None) -> SoftPrompt:
    """The model with a soft prompt.

    >>> from flan_jax.models import t5
    >>> base = t5.EncoderDecoder(t5.T5Config(vocab_size=128, emb_dim=32))
    >>> PromptTuning(length=3).on(base).sides
    ('encoder',)

    Raises:
      UserError: see `SoftPrompt` and `prompt_start.of`.
    """
    start = prompt_start.of(
      self.init,
      length=self.length,
      vocabulary=vocabulary,
      class_labels=self.class_labels and tuple(self.class_labels),
      text=self.text,
      path=self.path,
    )
    return SoftPrompt(
      model,
      self.length,
      side=self.side,
      reparameterisation=self.reparameterisation,
      start=start,
    )
