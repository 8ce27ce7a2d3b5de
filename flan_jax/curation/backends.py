"""What writes text for curation and judging: a generator of `Request`s.

Two kinds, asked in the same way (`endpoint/request.py: Generator`):

* `endpoint/client.py: Endpoint`, any OpenAI-compatible HTTP endpoint;
* `Checkpoint`, any checkpoint that we read, in batches on the device.

Both write every request and response to a journal and ask nothing twice.

B batch, S source, C choices, T target.
"""

import dataclasses
import functools
import math
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from flan_jax.convert import fingerprint, load, source
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import OnReply, Reply, Request, pending
from flan_jax.errors import UserError
from flan_jax.eval import buckets, rank
from flan_jax.models import decoding, stop_strings
from flan_jax.models.decoding_config import DecodeConfig
from flan_jax.models.rule_adapter import Rules
from flan_jax.training import checks


@dataclasses.dataclass(frozen=True)
class _Loaded:
  model: Any
  params: Any
  vocabulary: Any
  end_ids: tuple[int, ...]
  name: str


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  r"""A checkpoint of any format as a text generator; loaded when first used.

      backend = Checkpoint("checkpoints/smollm2_135m",
                           prompt_prefix="<|im_start|>user\n",
                           prompt_suffix="<|im_end|>\n<|im_start|>assistant\n")
      with Journal("journal.jsonl") as journal:
        backend.generate([Request("Name a fruit.")], journal=journal)[0].text

  The same request gets the same answer, whatever stands beside it: draws come
  from the prompt's tokens, the request's seed and its draw.

  Attributes:
    path: of the checkpoint.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with it.
    inputs_length: tokens of the longest prompt; a longer one gets an error.
    batch_size: requests at once.
    prompt_prefix, prompt_suffix: text around every prompt, such as chat marks;
      a system text stands before the prompt, with an empty line between them.
    inputs_eos: whether EOS follows a prompt; None: with an encoder-decoder.

  Raises:
    UserError: a size below 1. When first used: what `open_source`,
      `load_params` and `vocabulary.load` refuse.
  """

  path: str
  model: Any = None
  vocabulary: Any = None
  inputs_length: int = 2048
  batch_size: int = 8
  prompt_prefix: str = ""
  prompt_suffix: str = ""
  inputs_eos: bool | None = None

  # No further options in a request's `extra`.
  takes_extra: ClassVar[bool] = False

  def __post_init__(self):
    checks.numbers(inputs_length=self.inputs_length, batch_size=self.batch_size)

  @functools.cached_property
  def _loaded(self) -> _Loaded:
    opened = source.open_source(self.path)
    model = load.model_of(opened, self.model)
    vocabulary = load.vocabulary_of(opened, self.vocabulary)
    checks.vocabulary(vocabulary, model)
    vocabulary_lib.check_padding(vocabulary, model.kind)
    params = load.load_params(opened, model)
    return _Loaded(
      model,
      params,
      vocabulary,
      vocabulary_lib.end_ids(vocabulary),
      f"{opened.path.name}-{fingerprint.fingerprint(params)}",
    )

  @property
  def identity(self) -> Mapping[str, Any]:
    """What names the model: its parameters' fingerprint, and the prompt's form.

    The same checkpoint in another place is the same model.
    """
    loaded = self._loaded
    return {
      "model": loaded.name,
      "vocabulary": vocabulary_lib.fingerprint(loaded.vocabulary),
      "prompt": [self.prompt_prefix, self.prompt_suffix, self._eos],
    }

  def generate(
    self,
    requests: Sequence[Request],
    *,
    journal: Journal,
    on_reply: OnReply | None = None,
  ) -> list[Reply]:
    """See `Generator.generate`.

    Raises:
      UserError: a request with `extra` or a frequency penalty, which only
        endpoints read; logits that are not finite.
    """
    for request in requests:
      for name in ("extra", "frequency_penalty"):
        if getattr(request, name):
          raise UserError(
            f"Request: {name} = {getattr(request, name)!r} has no effect on a"
            " checkpoint. Leave it out, or use an endpoint."
          )
    identity = self.identity
    keys = [r.key(identity) for r in requests]
    replies, left = pending(requests, keys, journal)

    def done(number: int, reply: Reply):
      replies[number] = reply
      if on_reply:
        on_reply(number, reply)

    for number, reply in enumerate(replies):
      if reply is not None:
        done(number, reply)
    first = [numbers[0] for numbers in left.values()]
    inputs = dict(zip(first, self._tokenised(requests, first), strict=True))
    for number in [n for n in first if len(inputs[n]) > self.inputs_length]:
      first.remove(number)
      reply = Reply(
        error=f"its prompt of {len(inputs[number])} tokens is over the limit"
        f" of {self.inputs_length}; raise INPUTS_LENGTH."
      )
      for same in left[keys[number]]:
        done(same, reply)
    for batch in self._batches(requests, first, inputs):
      _journal_requests(journal, keys, requests, batch)
      began = time.monotonic()
      one = requests[batch[0]]
      answer = self._weigh if one.choices or one.target else self._write
      answers = answer([requests[n] for n in batch], [inputs[n] for n in batch])
      seconds = round((time.monotonic() - began) / len(batch), 4)
      answers = [dataclasses.replace(a, seconds=seconds) for a in answers]
      journal.append(
        *(
          {"record": "response", "key": keys[n], "reply": a.record}
          for n, a in zip(batch, answers, strict=True)
        )
      )
      for n, a in zip(batch, answers, strict=True):
        for same in left[keys[n]]:
          done(same, a)
    return replies

  @property
  def _eos(self) -> bool:
    if self.inputs_eos is None:
      return self._loaded.model.kind == "encoder_decoder"
    return self.inputs_eos

  def _tokenised(self, requests, numbers) -> list[list[int]]:
    loaded = self._loaded
    begin = vocabulary_lib.begin_id(loaded.vocabulary)
    decoder_only = loaded.model.kind == "decoder_only"
    start = [begin] if decoder_only and begin is not None else []
    end = [loaded.end_ids[0]] if self._eos else []
    texts = []
    for number in numbers:
      request = requests[number]
      before = f"{request.system}\n\n" if request.system else ""
      texts.append(
        self.prompt_prefix + before + request.prompt + self.prompt_suffix
      )
    ids = vocabulary_lib.encode_batch(loaded.vocabulary, texts)
    return [[*start, *i, *end] for i in ids]

  def _batches(self, requests, numbers, inputs) -> Iterator[list[int]]:
    """Requests that one compiled program answers, of like lengths."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
      r = requests[number]
      options = (
        r.max_tokens, r.temperature, r.top_p, r.stop, r.score,
        r.presence_penalty,
      )  # fmt: skip
      weighed = len(_weighed(r))
      groups.setdefault((None if weighed else options, weighed), []).append(
        number
      )
    for members in groups.values():
      members.sort(key=lambda n: len(inputs[n]))
      for start in range(0, len(members), self.batch_size):
        yield members[start : start + self.batch_size]

  def _padded(self, inputs) -> np.ndarray:
    sizes = buckets.INPUT_SIZES(self.inputs_length)
    longest = max(map(len, inputs))
    return buckets.pad_inputs(
      inputs, self.batch_size, buckets.fit(longest, sizes)
    )

  def _write(self, requests, inputs) -> list[Reply]:
    loaded, first = self._loaded, requests[0]
    draws = first.temperature > 0
    config = DecodeConfig(
      "sample" if draws else "greedy",
      max_decode_len=first.max_tokens,
      temperature=first.temperature if draws else None,
      top_p=first.top_p if first.top_p != 1 else None,
      end_ids=loaded.end_ids,
      stop_strings=first.stop,
      return_scores=first.score,
      rules=_rules(first.presence_penalty),
    )
    inputs_BS = self._padded(inputs)
    seeds_B = None
    if draws:
      rest = [0] * (self.batch_size - len(inputs))
      seeds_B = [*map(_seed, requests, inputs), *rest]
    decoded = decoding.decode(
      loaded.model,
      loaded.params,
      inputs_BS,
      config,
      seeds_B=seeds_B,
      text=loaded.vocabulary.decode if first.stop else None,
      name=lambda row: f"prompt {requests[row].prompt[:60]!r}",
    )
    out = []
    for row, tokens in enumerate(inputs):
      said = [int(t) for t in decoded.tokens_BKT[row, 0] if t >= 0]
      written = len(said)
      if said and said[-1] in config.end_ids:
        said.pop()
      text = loaded.vocabulary.decode(said) if said else ""
      score = None
      if first.score:
        score = float(decoded.scores_BK[row, 0])
      out.append(
        Reply(
          text=stop_strings.cut(text, config.stop_strings)[0],
          complete=bool(decoded.complete_BK[row, 0]),
          score=score,
          prompt_tokens=len(tokens),
          completion_tokens=written,
        )
      )
    return out

  def _weigh(self, requests, inputs) -> list[Reply]:
    loaded = self._loaded
    flat = [c for r in requests for c in _weighed(r)]
    tokens = vocabulary_lib.encode_batch(loaded.vocabulary, flat)
    for text, ids in zip(flat, tokens, strict=True):
      if not ids:
        raise UserError(f"Request: the text {text!r} has no token.")
    longest = max(map(len, tokens))
    C = len(_weighed(requests[0]))
    T = buckets.fit(longest, buckets.sizes(max(longest, 2), smallest=2))
    choices_BCT = np.full((self.batch_size, C, T), -1, np.int32)
    for place, ids in enumerate(tokens):
      choices_BCT[place // C, place % C, : len(ids)] = ids
    log_probs_BC = np.asarray(
      rank.choice_log_probs(
        loaded.model, loaded.params, self._padded(inputs), choices_BCT
      ),
      np.float64,
    )
    out = []
    for row, ids in enumerate(inputs):
      log_probs = tuple(map(float, log_probs_BC[row]))
      if any(map(math.isnan, log_probs)):
        raise UserError(
          f"prompt {requests[row].prompt[:60]!r}: the scores of what follows"
          f" are {list(log_probs)}; the parameters are not finite. Use an"
          " earlier checkpoint."
        )
      reply = Reply(log_probs=log_probs, prompt_tokens=len(ids))
      if requests[row].target:
        reply = Reply(
          score=log_probs[0],
          prompt_tokens=len(ids),
          completion_tokens=len(tokens[row]),
        )
      out.append(reply)
    return out


def _weighed(request: Request) -> tuple[str, ...]:
  """The texts whose log-probabilities are wanted."""
  return request.choices or ((request.target,) if request.target else ())


def _rules(presence_penalty: float) -> Rules | None:
  """The penalty as a rule on what the answer has said."""
  if not presence_penalty:
    return None
  return Rules(
    end_score=0.0,
    end_length=1,
    end_stays=False,
    token_scores=(),
    repeat_score=-presence_penalty,
    repeat_prompt=False,
  )


def _seed(request: Request, tokens: Sequence[int]) -> int:
  parts = np.array([request.seed or 0, request.draw, *tokens], np.int64)
  return zlib.crc32(parts.tobytes())


def _journal_requests(journal, keys, requests, batch):
  journal.append(
    *(
      {
        "record": "request",
        "key": keys[n],
        "time": round(time.time(), 3),
        "body": requests[n].content,
      }
      for n in batch
    )
  )
