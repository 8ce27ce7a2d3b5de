"""Our checkpoints under EleutherAI's lm-evaluation-harness.

  pip install -e '.[harness]'
  python -m flan_jax.eval.harness run --model flan_jax \
      --model_args path=checkpoints/smollm2_135m,max_length=1024 \
      --tasks hellaswag --batch_size 16

is `lm_eval` with one more model, `flan_jax`, which takes any checkpoint that
we read, of both kinds. From Python, `lm_eval.simple_evaluate(model=
harness.adapter()(path=...), tasks=[...])`.

Numbers are those of the harness's own `hf` model on the exported checkpoint:
the same split of context and continuation, BOS and EOS where the tokenizer puts
them, the same windows. Two exceptions, where `hf` of 0.4.13 is wrong: with
transformers 5 it puts the embedding in the place of the head of T5 v1.1 (so of
FLAN-T5, T0 and LM-adapted T5; it ties weights after loading), and an
encoder-decoder's answers may be as long as their context and `max_gen_toks`
together. Nothing of the harness is imported before it is used.

Source: Gao et al., the language model evaluation harness, 0.4.13,
`lm_eval/api/model.py`.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The harness imports torch, which for CUDA brings Triton. That has to be loaded
# before TensorFlow: the other way round their two copies of LLVM end the
# process.
if "tensorflow" not in sys.modules:
  with contextlib.suppress(ImportError):
    import triton  # noqa: F401

from flan_jax.convert import load, source
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import continuations, generation
from flan_jax.models.decoding_config import DecodeConfig

NAME = "flan_jax"
# Names of the harness and of its backends for the longest answer.
MAX_TOKENS = (
  "max_gen_toks",
  "max_new_tokens",
  "max_tokens",
  "max_completion_tokens",
)
SAMPLING = ("temperature", "top_k", "top_p", "seed")


@dataclasses.dataclass(frozen=True)
class Context:
  """A text that is gone on from; see `generation.Prompt`."""

  inputs: np.ndarray
  number: int


@functools.cache
def adapter() -> type:
  """The harness's model class for our checkpoints.

      lm = adapter()(path="checkpoints/smollm2_135m", max_length=1024)
      lm_eval.simple_evaluate(model=lm, tasks=["hellaswag"])

  The class takes
    path: a checkpoint of any format.
    max_length: tokens of the longest row; longer contexts lose their beginning.
    max_gen_toks: tokens of an answer where a task does not say.
    batch_size: rows at once.
    add_bos_token: whether BOS stands before a context; None: where the
      tokenizer puts it. False is what `hf` does for tokenizers without.
    model, vocabulary: None: what comes with the checkpoint.
    device: is not read, since JAX chooses it (JAX_PLATFORMS).

  Raises:
    UserError: lm_eval is not installed.
  """
  try:
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
  except ModuleNotFoundError as e:
    raise UserError(
      f"the evaluation harness is not installed ({e}): pip install -e"
      " '.[harness]'."
    ) from None

  class FlanJax(TemplateLM):
    """See `adapter`."""

    def __init__(
      self,
      path: str,
      max_length: int = 2048,
      max_gen_toks: int = 256,
      batch_size: int | str = 8,
      add_bos_token: bool | None = None,
      model: Any = None,
      vocabulary: Any = None,
      max_batch_size: int | None = None,
      device: str | None = None,
    ):
      super().__init__()
      # The harness's command passes a device whether asked to or not.
      del device
      if max_batch_size is not None:
        raise UserError(
          f"max_batch_size = {max_batch_size!r} has no effect on the model"
          f" {NAME}: batch_size is a number here. Leave it out."
        )
      self.max_length = _whole("max_length", max_length)
      self.max_gen_toks = _whole("max_gen_toks", max_gen_toks)
      self.batch_size = _whole("batch_size", batch_size)
      opened = source.open_source(path)
      self.model = load.model_of(opened, model)
      self.vocabulary = load.vocabulary_of(opened, vocabulary)
      vocabulary_lib.check_padding(self.vocabulary, self.model.kind)
      self.params = load.load_params(opened, self.model)
      self.path = str(opened.path)
      self.ends = vocabulary_lib.end_ids(self.vocabulary)
      self.causal = self.model.kind == "decoder_only"
      self.backend = "causal" if self.causal else "seq2seq"
      self.begin = vocabulary_lib.begin_id(self.vocabulary)
      if add_bos_token is not None:
        self.begin = self.prefix_token_id if add_bos_token else None

    @property
    def eot_token_id(self) -> int:
      return self.ends[0]

    @property
    def prefix_token_id(self) -> int:
      """What stands before a text that has nothing before it."""
      if self.causal:
        begin = vocabulary_lib.begin_id(self.vocabulary)
        for id_ in (begin, _bos(self.vocabulary)):
          if id_ is not None:
            return id_
      return self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
      return vocabulary_lib.fingerprint(self.vocabulary)

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
      raise UserError(
        "--apply_chat_template has no effect on the model"
        f" {NAME}, which knows no chat templates. Leave it out."
      )

    def tok_encode(
      self, string: str, add_special_tokens: bool | None = None, **kwargs
    ) -> list[int]:
      ids = [int(i) for i in self.vocabulary.encode(string)]
      if add_special_tokens is False:
        return ids
      if not self.causal:
        return [*ids, self.eot_token_id]
      if self.begin is None or ids[:1] == [self.begin]:
        return ids
      return [self.begin, *ids]

    def _loglikelihood_tokens(
      self, requests: Sequence, disable_tqdm: bool = False, **kwargs
    ) -> list[tuple[float, bool]]:
      scores = continuations.score(
        self.model,
        self.params,
        [
          continuations.Continuation(tuple(context), tuple(tokens))
          for _, context, tokens in requests
        ],
        batch_size=self.batch_size,
        max_length=self.max_length,
      )
      out = [(s.log_prob, s.greedy) for s in scores]
      for (texts, _, _), answer in zip(requests, out, strict=True):
        if texts is not None:
          self.cache_hook.add_partial("loglikelihood", texts, answer)
      return out

    def loglikelihood_rolling(
      self, requests: Sequence, disable_tqdm: bool = False
    ) -> list[float]:
      windows, counts = [], []
      for (text,) in (r.args for r in requests):
        parts = [
          (None, *utils.make_disjoint_window(pair))
          for pair in utils.get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
          )
        ]
        windows += parts
        counts.append(len(parts))
      scores = iter(self._loglikelihood_tokens(windows))
      out = []
      for request, count in zip(requests, counts, strict=True):
        total = sum(next(scores)[0] for _ in range(count))
        self.cache_hook.add_partial(
          "loglikelihood_rolling", request.args, total
        )
        out.append(total)
      return out

    def generate_until(
      self, requests: Sequence, disable_tqdm: bool = False
    ) -> list[str]:
      groups: dict[DecodeConfig, list[int]] = {}
      for number, request in enumerate(requests):
        config = decode_config(request.args[1], self.max_gen_toks, self.ends)
        groups.setdefault(config, []).append(number)
      out = [""] * len(requests)
      for config, numbers in groups.items():
        room = self.max_length
        if self.causal:
          room -= config.max_decode_len
        if room < 1:
          raise UserError(
            f"an answer of {config.max_decode_len} tokens leaves no room for a"
            f" context in max_length {self.max_length}; raise max_length."
          )
        contexts = [
          Context(self._context(requests[n].args[0], room), n) for n in numbers
        ]
        results = generation.generate(
          self.model,
          self.params,
          contexts,
          decode=self.vocabulary.decode,
          batch_size=self.batch_size,
          lengths={"inputs": room, "targets": config.max_decode_len},
          config=config,
          name=lambda c: f"request {c.number}",
        )
        for number, result in zip(numbers, results, strict=True):
          out[number] = result.text
          self.cache_hook.add_partial(
            "generate_until", requests[number].args, result.text
          )
      return out

    def _context(self, text: str, room: int) -> np.ndarray:
      ids = self.tok_encode(text) or [self.prefix_token_id]
      return np.array(ids[-room:], np.int32)

  return FlanJax


def decode_config(
  options: Mapping[str, Any], max_gen_toks: int, ends: tuple[int, ...]
) -> DecodeConfig:
  """How a task's generation options decode.

  >>> decode_config({"until": ["Q:"], "do_sample": False}, 8, (2,)).stop_strings
  ('Q:',)

  Args:
    options: of a task: `until`, one of `MAX_TOKENS`, `do_sample`, `SAMPLING`.
    max_gen_toks: where the task does not say.
    ends: ids that end an answer.

  Raises:
    UserError: an option that is not known, or a value that is refused.
  """
  options = dict(options)
  until = options.pop("until", None) or ()
  until = (until,) if isinstance(until, str) else tuple(until)
  lengths = [options.pop(name, None) for name in MAX_TOKENS]
  lengths = [n for n in lengths if n is not None]
  sampling = {name: options.pop(name, None) for name in SAMPLING}
  temperature = sampling["temperature"]
  draws = options.pop("do_sample", None)
  if draws is None:
    draws = bool(temperature)
  if options.pop("num_beams", 1) != 1 or options:
    raise UserError(
      f"generation options {sorted(options) or ['num_beams']} are not read by"
      f" the model {NAME}; known are until, do_sample,"
      f" {', '.join((*MAX_TOKENS, *SAMPLING))}."
    )
  # As the harness has it: without sampling the others say nothing.
  draws = draws and temperature != 0
  given = {k: v for k, v in sampling.items() if v is not None and draws}
  if given.get("top_p") == 1:
    del given["top_p"]
  if given.get("top_k") == 0:
    del given["top_k"]
  return DecodeConfig(
    "sample" if draws else "greedy",
    max_decode_len=int(lengths[0]) if lengths else max_gen_toks,
    end_ids=ends,
    stop_strings=tuple(dict.fromkeys(s for s in until if s)),
    **given,
  )


def register() -> None:
  """Makes the model known to the harness as `flan_jax`."""
  from lm_eval.api.registry import MODEL_REGISTRY, register_model

  if NAME not in MODEL_REGISTRY:
    register_model(NAME)(adapter())


def main() -> int:
  """The harness's command line with the model `flan_jax`."""
  try:
    adapter()
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
  except UserError as e:
    print(f"\nerror: {e}", file=sys.stderr)
    return 2
  return 0


def _whole(name: str, value: Any) -> int:
  try:
    number = int(value)
  except (TypeError, ValueError):
    number = 0
  if number < 1 or isinstance(value, float):
    raise UserError(f"{name} is {value!r}; give a whole number, 1 or more.")
  return number


def _bos(vocabulary) -> int | None:
  try:
    bos = vocabulary.bos_id
  except NotImplementedError:
    return None
  return bos if bos is not None and bos >= 0 else None


if __name__ == "__main__":
  sys.exit(main())
