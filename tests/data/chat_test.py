"""Chat formats and their tokens, against transformers' chat templates."""

import json
import random
import warnings

import numpy as np
import pytest
import seqio
import tokenizers as hf
from tokenizers import decoders, models, pre_tokenizers, trainers

from flan_jax.data import (
  chat_formats,
  chat_template,
  chat_tokens,
  p3_jinja,
  sft_examples,
  sft_records,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.chat_formats import EOS, ChatFormat, Piece, Rendered
from flan_jax.data.sft_records import ASSISTANT, USER, Turn
from flan_jax.errors import SpecError, UserError

SPECIAL = [
  "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>",
  "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>",
  "<end_of_turn>",
]  # fmt: skip
TEXT = [
  "the quick brown fox jumps over the lazy dog, and then it says hello!",
  "def add(a, b):\n  return a + b\n\n\nprint(add(1, 2))",
  "Élan vital: 1,024 naïve façades — 😀😀 中文 text",
  "user assistant system model USER: ASSISTANT: [INST] [/INST] ### Response:",
] * 4


def made(folder, kind, template=None, bos=True, trim=False):
  """A tokenizer of one of two kinds, in a folder, as a vocabulary."""
  tokenizer = hf.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
  alphabet = []
  if kind == "bytes":
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = hf.processors.ByteLevel(trim_offsets=trim)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
  else:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
  trainer = trainers.BpeTrainer(
    vocab_size=480, special_tokens=SPECIAL, initial_alphabet=alphabet,
    show_progress=False,
  )  # fmt: skip
  tokenizer.train_from_iterator(TEXT, trainer)
  tokenizer.save(str(folder / "tokenizer.json"))
  config = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<unk>",
    "add_bos_token": bos,
  }
  if template is not None:
    config["chat_template"] = template
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return vocabulary_lib.load(folder)


@pytest.fixture(scope="module", params=["bytes", "spaces"])
def vocabulary(request, tmp_path_factory):
  return made(tmp_path_factory.mktemp(request.param), request.param)


def reference(vocabulary):
  """The same tokenizer in transformers."""
  import transformers

  return transformers.PreTrainedTokenizerFast(
    tokenizer_file=str(vocabulary.path), bos_token="<s>", eos_token="</s>"
  )


# The formats as Jinja programs, as their authors publish them, with answers
# marked as generated.
def _loop(user, answer, system, before="", between="{{ '' }}"):
  return (
    before + "{% for m in messages %}"
    "{% if m['role'] == 'system' %}" + system + "{% elif m['role'] == 'user' %}"
    + user + "{% else %}{% generation %}" + answer
    + "{% endgeneration %}{% if not loop.last %}" + between
    + "{% endif %}{% endif %}{% endfor %}"
  )  # fmt: skip


_LLAMA3 = "<|start_header_id|>{}<|end_header_id|>\n\n"
TEMPLATES = {
  "tulu": _loop(
    "{{ '<|user|>\n' + m['content'].strip() + '\n<|assistant|>\n' }}",
    "{{ m['content'].strip() + eos_token }}",
    "{{ '<|system|>\n' + m['content'].strip() + '\n' }}",
    between="{{ '\n' }}",
  ),
  "chatml": _loop(
    "{{ '<|im_start|>user\n' + m['content'] + '<|im_end|>\n"
    "<|im_start|>assistant\n' }}",
    "{{ m['content'] + '<|im_end|>' }}",
    "{{ '<|im_start|>system\n' + m['content'] + '<|im_end|>\n' }}",
  ).replace("{% endgeneration %}", "{% endgeneration %}{{ '\n' }}"),
  "llama3": _loop(
    "{{ '" + _LLAMA3.format("user") + "' + m['content'] | trim + '<|eot_id|>"
    + _LLAMA3.format("assistant") + "' }}",
    "{{ m['content'] | trim + '<|eot_id|>' }}",
    "{{ '" + _LLAMA3.format("system") + "' + m['content'] | trim"
    " + '<|eot_id|>' }}",
    before="{{ bos_token }}",
  ),
  "llama2": (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'].strip()"
    " + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '')"
    " + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + m['content'].strip() + ' ' + eos_token"
    " }}{% endgeneration %}{% endif %}{% endfor %}"
  ),
  "gemma": (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set rest = messages[1:] %}"
    "{% set first = messages[0].content | trim + '\n\n' %}"
    "{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}"
    "{{ '<start_of_turn>user\n' + (first if loop.first else '')"
    " + m.content | trim + '<end_of_turn>\n<start_of_turn>model\n' }}"
    "{% else %}{% generation %}{{ m.content | trim + '<end_of_turn>' }}"
    "{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}"
  ),
}  # fmt: skip


def record(*texts, system=None):
  roles = (USER, ASSISTANT)
  turns = [Turn(roles[n % 2], text) for n, text in enumerate(texts)]
  return sft_records.conversation(turns, system)


RECORDS = [
  record("Is it so?", "Yes."),
  record("hello", "def add(a, b):\n  return a + b", "again 😀", "中文 façade"),
  record(" spaces ", " around it \n", "\n\nlines\n", "over\n\n\nthe dog"),
  record("2 + 2?", "4", "and 3?", "5", "x", "é", system="Be brief: 1,024."),
  record("#", " "*3 + "indented", system=" a "),
]  # fmt: skip


def messages(conversation):
  out = [{"role": t.role, "content": t.text} for t in conversation.turns]
  if conversation.system is not None:
    out.insert(0, {"role": "system", "content": conversation.system})
  return out


def expected(vocabulary, template, conversation):
  """Ids and mask of transformers, less the BOS that the batch puts there."""
  encoded = reference(vocabulary).apply_chat_template(
    messages(conversation),
    chat_template=template,
    tokenize=True,
    return_dict=True,
    return_assistant_tokens_mask=True,
  )
  ids, mask = encoded["input_ids"], encoded["assistant_masks"]
  if ids[0] == vocabulary.begin_id:
    return ids[1:], mask[1:]
  return ids, mask


@pytest.mark.parametrize("name", TEMPLATES)
def test_formats_are_as_transformers_has_them(name, vocabulary):
  tokenizer = chat_tokens.Tokenizer(vocabulary)
  how = chat_formats.FORMATS[name]
  found = tokenizer.encode([chat_formats.render(r, how) for r in RECORDS])
  for conversation, tokens in zip(RECORDS, found, strict=True):
    ids, mask = expected(vocabulary, TEMPLATES[name], conversation)
    assert tokens.ids_N.tolist() == ids
    assert tokens.trained_N.astype(int).tolist() == mask


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_tokenizers_own_template(name, vocabulary, tmp_path):
  """With marks, and without: compared with what asks for the answer."""
  marked = TEMPLATES[name]
  plain = marked.replace("{% generation %}", "")
  plain = plain.replace("{% endgeneration %}", "")
  for source in (marked, plain):
    path = tmp_path / "a.jinja"
    path.write_text(source)
    made_of = chat_template.of(vocabulary, str(path))
    tokenizer = chat_tokens.Tokenizer(vocabulary)
    found = tokenizer.encode([made_of.render(r) for r in RECORDS])
    for conversation, tokens in zip(RECORDS, found, strict=True):
      ids, mask = expected(vocabulary, marked, conversation)
      assert tokens.ids_N.tolist() == ids
      assert tokens.trained_N.astype(int).tolist() == mask
      assert len(tokens.ends) == len(conversation.turns) // 2


def spoken(vocabulary, tokens, trained):
  """The text of tokens in the loss, or of the others."""
  ids = tokens.ids_N[tokens.trained_N == trained].tolist()
  return "".join(vocabulary.texts(ids))


WORDS = ["dog", " the", "\n", "  ", "é", "😀", "中", "a_b", "1,024", "\t", "."]


@pytest.mark.parametrize("name", chat_formats.FORMATS)
def test_exactly_the_answers_are_trained(name, tmp_path_factory):
  """Bytes decode to what they were made of, so the text says which were."""
  # Such tokenizers leave blanks out of what a token stands for, so that
  # transformers finds no answer that begins with one.
  vocabulary = made(tmp_path_factory.mktemp("bytes"), "bytes", trim=True)
  chance, how = random.Random(name), chat_formats.FORMATS[name]
  records = []
  for _ in range(60):
    turns = 2 * chance.randrange(1, 4)
    said = ["".join(chance.choices(WORDS, k=5)) + "." for _ in range(turns)]
    records.append(record(*said, system=chance.choice([None, "Be brief."])))
  tokenizer = chat_tokens.Tokenizer(vocabulary)
  rendered = [chat_formats.render(r, how) for r in records]
  wrong = 0
  for r, part, tokens in zip(
    records, rendered, tokenizer.encode(rendered), strict=True
  ):
    text = chat_formats.text(part.pieces, "<s>", "</s>")
    whole = "".join(vocabulary.texts(tokens.ids_N.tolist()))
    assert whole == text
    clean = (lambda t: t.strip()) if how.strip else (lambda t: t)
    answer = how.answer.replace(EOS, "</s>")
    answers = [answer.replace("{text}", clean(t.text)) for t in r.turns[1::2]]
    # A token may be of both, the end of a cue and the beginning of an answer.
    wrong += spoken(vocabulary, tokens, True) != "".join(answers)
    assert spoken(vocabulary, tokens, True).endswith(answers[-1][-9:])
    assert tokens.ends == _ends(vocabulary, tokens, answers)
  # Answers that begin with white space after a cue that ends with some.
  assert wrong <= (20 if name in ("chatml", "plain") else 0)


def _ends(vocabulary, tokens, answers):
  """After how many tokens the mark of each answer's end is behind."""
  marks = [n for n, i in enumerate(tokens.ids_N) if i in vocabulary.end_ids]
  trained = [n + 1 for n in marks if tokens.trained_N[n]]
  assert len(trained) == len(answers)
  return trained


@pytest.mark.parametrize("name", ["plain", "alpaca", "tulu", "vicuna"])
def test_sentencepiece(name):
  """EOS is its id; what stands between two is tokenised as a whole."""
  vocabulary = vocabulary_lib.load()
  how = chat_formats.FORMATS[name]
  tokenizer = chat_tokens.Tokenizer(vocabulary)
  for r in RECORDS:
    (tokens,) = tokenizer.encode([chat_formats.render(r, how)])
    text = chat_formats.text(chat_formats.render(r, how).pieces)
    chunks = text.split("<eos>")
    ids = []
    for chunk in chunks:
      ids += [*(vocabulary.encode(chunk) if chunk else []), vocabulary.eos_id]
    assert tokens.ids_N.tolist() == ids[:-1]
    answers = [t.text for t in r.turns[1::2]]
    parts = np.split(tokens.ids_N, np.flatnonzero(tokens.ids_N == 1) + 1)
    masks = np.split(tokens.trained_N, np.flatnonzero(tokens.ids_N == 1) + 1)
    for part, mask, answer in zip(parts, masks, answers, strict=False):
      first = int(mask.argmax())
      assert mask[first:].all()
      assert part[-1] == vocabulary.eos_id
      said = vocabulary.tokenizer.decode(part[first:-1].tolist())
      assert said.strip().endswith(answer.strip())
      assert len(said.strip()) <= len(answer.strip()) + 1


def test_bytes_and_replacements():
  tokenizer = chat_tokens.Tokenizer(seqio.ByteVocabulary())
  rendered = chat_formats.render(record("é", "😀a"), ChatFormat())
  (tokens,) = tokenizer.encode([rendered])
  assert tokens.trained_N.tolist() == [False] * 4 + [True] * 6
  assert tokens.ids_N[-1] == 1
  replacing = vocabulary_lib.load(replacements={"😀": ":-)", "é": "e"})
  (tokens,) = chat_tokens.Tokenizer(replacing).encode([rendered])
  assert replacing.decode(tokens.ids_N[tokens.trained_N].tolist()) == ":-)a"
  with pytest.raises(UserError, match="does not say which characters"):
    chat_tokens.Tokenizer(seqio.PassThroughVocabulary(9)).encode(
      [Rendered([Piece("a")], [])]
    )


def test_bos_between_turns_has_to_be_there():
  rendered = chat_formats.render(RECORDS[1], chat_formats.FORMATS["llama2"])
  with pytest.raises(UserError, match="puts BOS between turns"):
    chat_tokens.Tokenizer(vocabulary_lib.load()).encode([rendered])


def test_alpaca_and_vicuna_say_what_was_published():
  def text(r, name):
    rendered = chat_formats.render(r, chat_formats.FORMATS[name])
    return chat_formats.text(rendered.pieces, eos="</s>")

  assert text(record("Add 2 and 2.", "4"), "alpaca") == (
    "Below is an instruction that describes a task. Write a response that"
    " appropriately completes the request.\n\n### Instruction:\nAdd 2 and 2."
    "\n\n### Response:4</s>"
  )
  turns = [Turn(USER, "Add.", "2 and 2"), Turn(ASSISTANT, "4")]
  assert text(sft_records.conversation(turns), "alpaca") == (
    "Below is an instruction that describes a task, paired with an input that"
    " provides further context. Write a response that appropriately completes"
    " the request.\n\n### Instruction:\nAdd.\n\n### Input:\n2 and 2\n\n###"
    " Response:4</s>"
  )
  assert text(sft_records.conversation(turns), "plain") == (
    "Add.\n\n2 and 2\n\n4</s>"
  )
  assert text(record("a", "b", "c", "d"), "vicuna") == (
    "A chat between a curious user and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the user's"
    " questions. USER: a ASSISTANT: b</s>USER: c ASSISTANT: d</s>"
  )
  # Fields that a text holds stay text.
  assert "{eos}{text}" in text(record("{eos}{text}", "b"), "tulu")


def test_a_format_of_ones_own():
  for fields, said in (
    ({"user": "{input}"}, "user '{input}' must hold {text} once"),
    ({"answer": "{text}{text}"}, "must hold {text} once"),
    ({"answer": "A: {text}"}, "without a mark that ends the turn"),
    ({"system": "s"}, "must hold {system} once"),
  ):
    with pytest.raises(SpecError, match=said.replace("{", r"\{")):
      ChatFormat(**fields)
  ended = ChatFormat(answer="{text}<|eot_id|>", after="{eos}", between="")
  pieces = chat_formats.render(record("a", "b", "c", "d"), ended).pieces
  assert chat_formats.text(pieces) == ("a\n\nb<|eot_id|>c\n\nd<|eot_id|><eos>")


# ---------------------------------------------------------------- templates


def test_templates_come_with_the_tokenizer(tmp_path):
  vocabulary = made(tmp_path, "bytes", TEMPLATES["tulu"])
  assert chat_template.of(vocabulary).source == TEMPLATES["tulu"]
  (tmp_path / "chat_template.jinja").write_text(TEMPLATES["chatml"])
  assert chat_template.of(vocabulary).source == TEMPLATES["chatml"]
  with pytest.raises(UserError, match="no chat template comes with"):
    chat_template.of(vocabulary_lib.load())
  with pytest.raises(UserError, match=r"'none.jinja' cannot be read"):
    chat_template.of(vocabulary, "none.jinja")


def test_bos_is_there_once(tmp_path):
  """The batch puts it there; a template's own is taken off."""
  for begins in (True, False):
    vocabulary = made(tmp_path, "bytes", TEMPLATES["gemma"], bos=begins)
    rendered = chat_template.of(vocabulary).render(RECORDS[0])
    text = chat_formats.text(rendered.pieces)
    assert text.startswith("<s>") != begins
  # SentencePiece has it as an id, not as text.
  template = chat_template.ChatTemplate(
    TEMPLATES["llama2"], tokens={"bos_token": "<s>", "eos_token": "</s>"},
    begun=True, inline=False,
  )  # fmt: skip
  pieces = template.render(RECORDS[1]).pieces
  table = chat_formats.render(RECORDS[1], chat_formats.FORMATS["llama2"])
  assert chat_formats.text(pieces) == chat_formats.text(table.pieces)
  assert [p.text for p in pieces if p.special] == ["{eos}", "{bos}", "{eos}"]


HOSTILE = [
  ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
   "{% endfor %}", "loops more than 100,000 times"),
  ("{{ 'a' * 10 ** 9 }}", "larger than a prompt may make"),
  ("{% for i in range(99999) %}{{ 'a' * 900 }}{% endfor %}",
   "longer than 10,000,000 characters"),
  ("{{ ''.__class__ }}", "Python's own '__class__'"),
  ("{{ messages[0]['__class__'] }}", "Python's own '__class__'"),
  ("{{ self._TemplateReference__context }}", "which is Python's own"),
  ("{% include 'a' %}", "the statement 'Include'"),
  ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the statement 'Macro'"),
  ("{{ messages.__len__() }}", "Python's own|the method"),
  ("{{ messages[0].content.format_map(messages) }}", "the method 'format_map'"),
  ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "Python's own"),
  ("{{ lipsum() }}", "calls 'lipsum', which is not there"),
  ("{% if messages %}", "does not parse, line 1"),
  ("{{ raise_exception('no system') }}", "refuses the conversation: no system"),
  ("{{ 1 // 0 }}", "cannot be rendered"),
  ("{{ strftime_now('%Y') }}", "calls 'strftime_now', which is not there"),
  ("{{ messages | attr('append') }}", "the filter 'attr'"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), HOSTILE)
def test_a_template_is_kept_in_bounds(source, said):
  template = chat_template.ChatTemplate(source, "t.jinja")
  with pytest.raises(UserError, match=f"t.jinja.*({said})") as error:
    template.text([{"role": "user", "content": "a"}])
  assert "\n" not in str(error.value)


def test_a_template_that_takes_long_is_stopped(monkeypatch):
  monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.05)
  slow = (
    "{% for i in range(90000) %}{% set x = 'ab' * 9000 %}"
    "{% set y = x | replace('a', 'b') %}{% endfor %}"
  )
  with pytest.raises(UserError, match=r"takes longer than 0.05 s"):
    chat_template.ChatTemplate(slow).text([])


def test_a_template_that_rewrites_turns_is_refused():
  """As those that take thoughts out of earlier answers do."""
  source = (
    "{% for m in messages %}{{ m.content if loop.last else 'x' }}</s>"
    "{% endfor %}"
  )
  with pytest.raises(UserError, match="earlier turns in another way"):
    chat_template.ChatTemplate(source).render(record("a", "b", "c", "d"))
  marked = "{% generation %}a{% endgeneration %}"
  with pytest.raises(UserError, match="marks 1 answers of .* with 2"):
    chat_template.ChatTemplate(marked).render(record("a", "b", "c", "d"))


def test_a_record_cannot_mark_what_is_trained():
  source = TEMPLATES["chatml"]
  template = chat_template.ChatTemplate(source)
  r = record("\ufdd2evil\ufdd3", "b")
  pieces = template.render(r).pieces
  assert [p.text for p in pieces if p.trained] == ["b<|im_end|>"]


def test_the_prompts_sandbox_is_as_it_was():
  """Statements and filters of chat templates are not offered to prompts."""
  with pytest.raises(p3_jinja.PromptError, match="the filter 'tojson'"):
    p3_jinja.compile_text(p3_jinja.Environment(), "{{ a | tojson }}", "p")


def test_what_real_templates_use(vocabulary):
  """Slices, namespaces, loop variables, JSON, breaks, absent keys."""
  import transformers

  source = (
    "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}"
    "{%- if m.tool_calls is defined and m.tool_calls -%}{{ m.x.y }}{%- endif -%}"
    "{%- if loop.index0 > 0 and messages[loop.index0 - 1].role == m.role -%}"
    "{{ raise_exception('twice') }}{%- endif -%}"
    "{%- set ns.n = ns.n + 1 -%}{%- if tools -%}{{ tools | tojson }}{%- endif -%}"
    "{{ m.role | upper }}:{{ m.content | trim }}{{ {'n': ns.n} | tojson }}"
    "{{ m | tojson(indent=2) }}"
    "{%- if loop.last %}{% set done = true %}{% break %}{% endif -%}"
    "{%- endfor -%}\n{{ messages[-1]['content'].split('.')[0] }}|||"
    "{%- set block -%}x{%- endset -%}{{ block }}\n"
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_file=str(vocabulary.path), bos_token="<s>", eos_token="</s>"
    )
  for r in RECORDS:
    wanted = tokenizer.apply_chat_template(
      messages(r), chat_template=source, tokenize=False
    )
    assert chat_template.ChatTemplate(source).text(messages(r)) == wanted


def test_turns_that_hold_a_mark_are_left_out(vocabulary):
  render = chat_template.ChatTemplate(TEMPLATES["chatml"]).render
  maker = sft_examples.Maker(vocabulary, render, {})
  found = maker.examples([record("a</s>", "b"), record("a", "b")])
  assert found[0] == sft_examples.ENDED
  assert not isinstance(found[1], str)
