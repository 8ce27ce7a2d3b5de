"""The collection of instruction data: splits, examples, batches, evaluation."""

import functools
import io
import json
import random

import numpy as np
import pytest
import rich.console
import seqio

from flan_jax import config
from flan_jax.data import (
  cached,
  chat_formats,
  counts,
  features,
  inventory,
  mixtures,
  seen,
  sft,
  sft_examples,
  sft_records,
  sft_show,
  template,
)
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.data.sft_records import ASSISTANT, USER, Turn
from flan_jax.errors import UserError
from flan_jax.eval import page
from flan_jax.eval.evaluation_set import EvaluationSet

LENGTHS = {"inputs": 40, "targets": 24}
VOCABULARY = vocabulary_lib.load()
WORDS = ("yes", "no", "maybe", "the cat", "sat", "on a mat", "and", "it ran")


def conversation(chance, exchanges, words=(1, 8)):
  """Messages of some exchanges."""
  out = []
  for n in range(2 * exchanges):
    said = " ".join(chance.choices(WORDS, k=chance.randint(*words)))
    out.append({"role": ("user", "assistant")[n % 2], "content": said})
  return out


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  """120 conversations of 12 people, 1 to 3 exchanges each."""
  chance = random.Random(0)
  rows = [
    {
      "messages": conversation(chance, chance.choice([1, 1, 2, 3])),
      "user_id": f"person_{n % 12}",
      "category": "made",
    }
    for n in range(120)
  ]
  path = tmp_path_factory.mktemp("sft") / "rows.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


@pytest.fixture
def registered():
  """Registers a collection, and takes it back."""

  def register(collection, vocabulary=VOCABULARY):
    collection.register(vocabulary)
    return collection

  yield register
  sft.unregister()


def examples(lengths=LENGTHS, split="train", **kwargs):
  resolved = mixtures.resolve(sft.TRAIN)
  options = {"shuffle": False, "num_epochs": 1, "seed": 0, **kwargs}
  return list(mixtures.examples(resolved, lengths, split=split, **options))


def test_rows_are_held_out_by_seed(path):
  read = sft.SFT(path, held_out=0.3).read[0]
  train, held = read["train"], read["test"]
  assert read["validation"] is held
  assert len(train) + len(held) == 120
  assert 20 <= len(held) <= 52
  assert not {r.line for r in train} & {r.line for r in held}
  assert [r.line for r in held] != sorted(r.line for r in held)
  again = sft.SFT(path, held_out=0.3).read[0]
  assert again["test"] == held
  other = sft.SFT(path, held_out=0.3, seed=1).read[0]
  assert {r.line for r in other["test"]} != {r.line for r in held}
  # A larger share holds out the same and more.
  more = sft.SFT(path, held_out=0.5).read[0]
  assert {r.line for r in held} < {r.line for r in more["test"]}


def test_whole_users_are_held_out(path):
  read = sft.SFT(path, held_out=0.3, split_by="user_id").read[0]
  users = [{r.metadata["user_id"] for r in read[s]} for s in ("train", "test")]
  assert users[0]
  assert users[1]
  assert not users[0] & users[1]
  with pytest.raises(UserError, match="line 1: it has no 'user'"):
    _ = sft.SFT(path, held_out=0.3, split_by="user").read


def test_the_same_prompt_is_on_one_side(tmp_path):
  rows = [{"prompt": f"{n % 20}", "completion": f"{n}"} for n in range(200)]
  path = tmp_path / "a.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  read = sft.SFT(str(path), held_out=0.4).read[0]
  prompts = [{r.prompt for r in read[s]} for s in ("train", "test")]
  assert not prompts[0] & prompts[1]
  assert len(read["train"]) + len(read["test"]) == 200


def test_files_of_held_out_rows(path, tmp_path):
  other = tmp_path / "b.jsonl"
  other.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
  both = sft.SFT(path, eval_files=str(other), held_out=0)
  read, files = both.read
  assert (len(read["train"]), len(read["test"])) == (120, 1)
  assert [f.lines for f in files] == [120, 1]
  with pytest.raises(UserError, match="in SFT_FILES and in SFT_EVAL_FILES"):
    _ = sft.SFT(path, eval_files=path, held_out=0).read


@pytest.mark.parametrize(
  ("options", "said"),
  [
    ({"format": "alpacca"}, "SFT_FORMAT is 'alpacca'.*nearest is 'alpaca'"),
    ({"chat_format": "tülu"}, "CHAT_FORMAT is 'tülu'.*nearest is 'tulu'"),
    ({"chat_format": 3}, "CHAT_FORMAT is a int"),
    ({"on_bad_row": "drop"}, "ON_BAD_ROW is 'drop'; known are error, skip"),
    ({"train_on": "first"}, "SFT_TRAIN_ON is 'first'; known are all, last"),
    ({"too_long": "cut"}, "SFT_TOO_LONG is 'cut'; known are turns, row"),
    ({"held_out": 1.0}, "SFT_HELD_OUT is 1.0"),
    ({"held_out": 0}, "nothing is held out"),
    ({"eval_files": "a"}, "set SFT_HELD_OUT=0 beside"),
    (
      {"eval_files": "a", "held_out": 0, "split_by": "x"},
      "SFT_SPLIT_BY='x' has no effect",
    ),
  ],
)
def test_wrong_options(options, said):
  with pytest.raises(UserError, match=said):
    sft.SFT("a.jsonl", **options)


def test_what_cannot_be_registered(path, registered):
  with pytest.raises(UserError, match=r"PROMPT_SUFFIX='x' has no effect"):
    sft.SFT(path).register(VOCABULARY, wrapper=template.Wrapper(suffix="x"))
  for name in ("chatml", "llama3", "gemma"):
    with pytest.raises(UserError, match="that end no text.*would never stop"):
      registered(sft.SFT(path, chat_format=name))
  silent = chat_formats.ChatFormat(user="{text}", system="{system}")
  registered(sft.SFT(chat_format=silent))
  with pytest.raises(UserError, match="SFT_FILES is not set"):
    mixtures.resolve(sft.TRAIN)
  registered(sft.SFT(path, held_out=1e-9))
  with pytest.raises(UserError, match="none is held out"):
    mixtures.resolve(sft.TRAIN)


def test_filters_come_before_the_split(path):
  def of_person_3(records):
    return [r for r in records if r.metadata["user_id"] == "person_3"]

  def none(records):
    return []

  read = sft.SFT(path, held_out=0.5, filters=(of_person_3,)).read[0]
  assert len(read["train"]) + len(read["test"]) == 10
  with pytest.raises(
    UserError, match=r"SFT_FILTERS: .*none leaves none of 120"
  ):
    _ = sft.SFT(path, filters=[none]).read
  # Which they are is part of what identifies the data.
  tasks = [sft.SFT(path, filters=f).tasks()[0] for f in ((), (none,))]
  assert tasks[0].fingerprint() != tasks[1].fingerprint()


def test_blank_users_are_those_that_are_trained_on(path, registered):
  options = {"held_out": 0.3, "chat_format": "tulu"}
  registered(sft.SFT(path, **options, blank_users=True))
  for example in examples({"inputs": 90, "targets": 90}):
    text = example["inputs_pretokenized"].decode()
    assert text == "<|user|>\n\n<|assistant|>\n"
  held = sft.SFT(path, **options, blank_users=True).read[0]["test"]
  assert held == sft.SFT(path, **options).read[0]["test"]
  assert all(t.text for r in held for t in r.turns)


def test_only_the_last_answer_is_trained(path, registered):
  registered(sft.SFT(path, held_out=0.3, train_on="last"))
  plain = sft.SFT(path, held_out=0.3).read[0]["train"]
  found = examples({"inputs": 99, "targets": 99})
  for record, example in zip(plain, found, strict=True):
    weights = example["targets_weights"]
    assert weights.all()
    decoded = VOCABULARY.decode(example["targets"].tolist())
    assert decoded == record.answer


def reference(record, vocabulary=VOCABULARY):
  """Tokens and weights of the plain format, from pieces, in numpy.

  EOS parts the text; in each part the answer is what follows the last blank
  line, and its first token follows those of what comes before it.
  """
  ids, weights = [], []
  for n in range(0, len(record.turns), 2):
    before = record.turns[n].text + "\n\n"
    if n:
      before = "\n\n" + before
    asked = vocabulary.encode(before)
    whole = vocabulary.encode(before + record.turns[n + 1].text)
    assert whole[: len(asked)] == asked
    ids += [*whole, vocabulary.eos_id]
    weights += [0] * len(asked) + [1] * (len(whole) - len(asked) + 1)
  return ids, weights


def test_examples_are_exact(path, registered):
  registered(sft.SFT(path, held_out=0.3))
  rows = sft.SFT(path, held_out=0.3).read[0]
  for split in ("train", "validation"):
    found = examples({"inputs": 200, "targets": 200}, split=split)
    for record, example in zip(rows[split], found, strict=True):
      ids, weights = reference(record)
      first = weights.index(1)
      assert example["inputs"].tolist() == ids[:first]
      assert example["targets"].tolist() == ids[first:]
      assert example["targets_weights"].tolist() == weights[first:]


@pytest.mark.parametrize("too_long", ["turns", "row"])
def test_what_is_too_long_goes_whole(path, registered, too_long):
  """Every row is a conversation of fewer turns, with its end, or is counted."""
  registered(sft.SFT(path, held_out=0.3, too_long=too_long))
  rows = sft.SFT(path, held_out=0.3).read[0]["train"]
  room = sum(LENGTHS.values())
  kept = {e["example_index"]: e for e in examples()}
  lost = long = 0
  for number, record in enumerate(rows):
    sizes = [
      len(reference(record.first(n))[0])
      for n in range(1, len(record.turns) // 2 + 1)
    ]
    fits = sum(size <= room for size in sizes)
    if too_long == "row" and fits < len(sizes):
      fits = 0
    if not fits:
      long += 1
      assert number not in kept
      continue
    ids, _ = reference(record.first(fits))
    example = kept[number]
    assert [*example["inputs"], *example["targets"]] == ids
    assert example["targets"][-1] == VOCABULARY.eos_id
    assert example["targets_weights"][-1] == 1
    lost += len(record.turns) - 2 * fits
  assert long + len(kept) == len(rows)
  assert bool(lost) == (too_long == "turns")
  (counted,) = counts.count(
    mixtures.resolve(sft.TRAIN), "train", LENGTHS
  ).values()
  assert (counted.read, counted.too_long, counted.turns) == (
    len(rows), long, lost
  )  # fmt: skip


def test_packed_rows_hold_what_the_examples_hold(path, registered):
  registered(sft.SFT(path, held_out=0.3))
  found = examples()
  batches = list(
    features.decoder_only_batches(
      found, lengths=LENGTHS, batch_size=4, begin_id=0
    )
  )
  packed = []
  for batch in batches:
    for row in range(4):
      part = {name: value[row] for name, value in batch.items()}
      for segment in range(1, part["decoder_segment_ids"].max() + 1):
        at = part["decoder_segment_ids"] == segment
        assert part["decoder_positions"][at].tolist() == list(range(at.sum()))
        assert part["decoder_input_tokens"][at][0] == 0
        assert (
          part["decoder_input_tokens"][at][1:]
          == part["decoder_target_tokens"][at][:-1]
        ).all()
        packed.append(
          (
            tuple(part["decoder_target_tokens"][at].tolist()),
            tuple(part["decoder_loss_weights"][at].astype(int).tolist()),
          )
        )
  assert sorted(packed) == sorted(
    (
      (*e["inputs"].tolist(), *e["targets"].tolist()),
      (*[0] * len(e["inputs"]), *e["targets_weights"].tolist()),
    )
    for e in found
  )
  assert max(b["decoder_segment_ids"].max() for b in batches) > 1


def test_no_attention_between_packed_conversations(path, registered):
  """The loss of a packed row is the sum of its conversations' losses."""
  import jax

  from flan_jax.models.decoder import DecoderConfig, DecoderOnly
  from flan_jax.training import loss, step

  registered(sft.SFT(path, held_out=0.3))
  found = examples()[:8]
  shape = DecoderConfig(
    vocab_size=4096, emb_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
    num_layers=1, mlp_dim=16, dtype="float32",
  )  # fmt: skip
  model = DecoderOnly(shape)
  params = model.init(jax.random.key(0))
  config = loss.LossConfig(z_loss=0.0)
  score = jax.jit(
    functools.partial(step.eval_step, model=model, loss_config=config)
  )

  def total(pack):
    (batch,) = features.decoder_only_batches(
      found, lengths=LENGTHS, batch_size=8, pack=pack, begin_id=0
    )
    return jax.device_get(score(params, batch))

  packed, alone = total(True), total(False)
  assert (
    packed.weight
    == alone.weight
    == sum(e["targets_weights"].sum() for e in found)
  )
  np.testing.assert_allclose(packed.loss, alone.loss, rtol=1e-5)


def test_weights_have_to_fit():
  good = {"inputs": [3, 4], "targets": [5, 1], "targets_weights": [1, 1]}

  def one(make=features.decoder_only_batches, **changed):
    lengths = {"inputs": 3, "targets": 3}
    list(make([{**good, **changed}], lengths=lengths, batch_size=1))

  one(inputs=[3] * 4)  # they share a row
  for changed, said in (
    ({"targets_weights": [1]}, r"their shape is \(1,\), of targets \(2,\)"),
    ({"targets_weights": [0, 0]}, "nothing is in the loss"),
    ({"inputs": [3] * 5}, "7 tokens, a row has 6"),
  ):
    with pytest.raises(UserError, match=f"targets_weights: .*{said}"):
      one(**changed)
  with pytest.raises(UserError, match="weighs all targets alike"):
    one(features.encoder_decoder_batches)


def test_cached_input_holds_no_weights(path, registered):
  registered(sft.SFT(path))
  with pytest.raises(UserError, match="inputs, targets, targets_weights;"):
    cached.check_features(seqio.TaskRegistry.get(sft.TRAIN))
  registered(sft.SFT(path).for_model("encoder_decoder"))
  cached.check_features(seqio.TaskRegistry.get(sft.TRAIN))


def test_conversations_do_not_mix_with_tasks_without_weights(path, registered):
  registered(sft.SFT(path))
  ours = seqio.TaskRegistry.get(sft.TRAIN)
  feature = seqio.Feature(VOCABULARY, add_eos=False)

  def nothing(split, shuffle_files=False, seed=None):
    raise AssertionError("it is refused before it is read")

  other = seqio.Task(
    "other",
    source=seqio.FunctionDataSource(nothing, ("train",)),
    output_features={"inputs": feature, "targets": feature},
    preprocessors=[],
  )

  def first(*tasks):
    mixture = seqio.Mixture("mixed", [(task, 1.0) for task in tasks])
    resolved = mixtures.Resolved(mixture, (), (), {}, {})
    return next(mixtures.examples(resolved, LENGTHS, seed=0))

  with pytest.raises(UserError, match="other has none.*cannot be mixed"):
    first(ours, other)
  # Mixed alone they keep their weights.
  found = first(ours)
  assert found["targets_weights"].shape == found["targets"].shape


def test_an_encoder_decoder_reads_the_history(path, registered):
  collection = sft.SFT(path, held_out=0.3, chat_format="alpaca")
  assert collection.for_model("encoder_decoder").kind == "encoder_decoder"
  registered(collection.for_model("encoder_decoder"))
  rows = collection.read[0]["train"]
  lengths = {"inputs": 150, "targets": 24}
  found = {e["example_index"]: e for e in examples(lengths)}
  lost = 0
  for number, record in enumerate(rows):
    targets = [*VOCABULARY.encode(record.answer), 1]
    example = found.get(number)
    if example is None:
      assert len(targets) > 24
      continue
    assert "targets_weights" not in example
    assert example["targets"].tolist() == targets
    assert len(example["inputs"]) <= 150
    assert example["inputs"][-1] == 1
    text = example["inputs_pretokenized"].decode()
    assert record.turns[-2].text in text
    assert text.endswith("### Response:")
    lost += record.turns[0].text not in text
  assert lost
  assert next(
    features.encoder_decoder_batches(
      found.values(), lengths=lengths, batch_size=2
    )
  )


def test_held_out_rows_are_asked_as_they_were_trained(path, registered):
  """The prompt's tokens are those before the answer's in the whole text."""
  registered(sft.SFT(path, held_out=0.3))
  resolved = mixtures.resolve(sft.HELD_OUT, split="test")
  rows = EvaluationSet.prepare(
    mixtures.catalogue_tasks(resolved),
    vocabulary=VOCABULARY,
    lengths={"inputs": 150, "targets": 8},
    batch_size=4,
    max_examples=9,
    form_of=mixtures.forms_of(resolved),
    kind="decoder_only",
  )
  held = sft.SFT(path, held_out=0.3).read[0]["test"]
  assert len(rows.examples["test"]) == 9
  for example, record in zip(rows.examples["test"], held, strict=False):
    ids, _ = reference(record)
    assert example.references == (record.answer,)
    begun = [0, *ids]
    assert begun[: len(example.inputs)] == example.inputs.tolist()
  with pytest.raises(UserError, match="no few-shot form"):
    sft.SFT(path).tasks()[1].evaluation_examples(
      "test", vocabulary=VOCABULARY, lengths=None, templates=(0,),
      max_examples=None, wrapper=template.PLAIN, shots=1,
    )  # fmt: skip


def test_prompts_that_do_not_fit_lose_their_first_turns(path, caplog):
  collection = sft.SFT(path, held_out=0.3)
  task = collection.tasks()[1]
  options = {
    "vocabulary": VOCABULARY, "templates": (0,), "max_examples": None,
    "wrapper": template.PLAIN, "shots": 0,
  }  # fmt: skip
  whole = task.evaluation_examples("test", lengths=None, **options)
  short = task.evaluation_examples(
    "test", lengths={"inputs": 14, "targets": 4}, **options
  )
  assert len(whole) == len(collection.read[0]["test"])
  assert 0 < len(short) < len(whole)
  assert f"the prompts of {len(whole) - len(short)} of" in caplog.text
  by_index = {e.index: e for e in whole}
  for example in short:
    assert len(example.inputs) <= 14
    assert by_index[example.index].inputs_text.endswith(example.inputs_text)
    assert example.targets_text == by_index[example.index].targets_text


def test_what_a_run_records(path, registered, tmp_path):
  spoilt = tmp_path / "b.jsonl"
  good = json.dumps({"prompt": "a", "completion": "b"})
  spoilt.write_text(f"{good}\n{good[:-3]}\n\n")
  registered(sft.SFT((path, str(spoilt)), on_bad_row="skip"))
  resolved = mixtures.resolve(sft.TRAIN)
  described = inventory.described(sft.TRAIN, resolved)["tasks"][sft.TRAIN]
  assert [f["lines"] for f in described["lines"]] == [120, 3]
  assert described["lines"][1]["skipped"] == {"not_json": 1, "blank_line": 1}
  assert len(described["copy"]) == 8
  left = inventory.left_out(resolved, LENGTHS)
  assert left[sft.TRAIN]["turns"] > 0
  assert left[sft.TRAIN]["not_kept"] == 0
  shown = page._data(
    {
      "data": {"train": inventory.described(sft.TRAIN, resolved)},
      "left_out": left,
    }
  )
  assert f"lost {left[sft.TRAIN]['turns']:,} turns" in shown
  assert "b.jsonl (prompt_completion): 3 lines, 1 read, 2 skipped" in shown
  assert "(1 not json, 1 blank line)" in shown
  long = left[sft.TRAIN]["too_long"]
  assert f"<td>{long:,}</td>" in shown
  assert long == 0 or "longer than a row" in shown


def test_rows_held_out_otherwise_were_trained_on(path, registered):
  def held_out(**options):
    registered(sft.SFT(path, held_out=0.3, **options))
    return mixtures.resolve(sft.HELD_OUT, split="test")

  held_out(seed=1)
  trained = inventory.described(sft.TRAIN, mixtures.resolve(sft.TRAIN))
  records = [{"train": trained}]
  assert not seen.seen(records, held_out(seed=1, chat_format="tulu"))
  assert seen.seen(records, held_out()) == {"sft_held_out": ["sft_train"]}
  assert not seen.seen([], held_out())


def test_a_prompt_that_is_nothing_is_counted(tmp_path, registered):
  """A format that puts nothing around an empty prompt leaves none to read."""
  turns = [Turn(USER, "a"), Turn(ASSISTANT, "b")]
  record = sft_records.conversation(turns)
  blank = sft_records.Record((Turn(USER, ""), turns[1]))
  how = chat_formats.ChatFormat(user="{text}")

  def render(r, prompt=False):
    return chat_formats.render(r, how, prompt=prompt)

  maker = sft_examples.Maker(VOCABULARY, render, {})
  found = maker.examples([record, blank])
  assert not isinstance(found[0], str)
  assert found[1] == sft_examples.EMPTY
  assert sft_examples.counted(found)["empty"] == 1


# --------------------------------------------------------------------- shown


def shown(collection, count=2, colours=None, **options):
  out = io.StringIO()
  console = rich.console.Console(
    file=out, width=200, color_system=colours, force_terminal=bool(colours)
  )
  sft_show.show(
    collection, count, vocabulary=VOCABULARY, console=console,
    **{"lengths": {"inputs": 200, "targets": 200}, **options},
  )  # fmt: skip
  return out.getvalue()


def test_show_marks_what_is_in_the_loss(path):
  collection = sft.SFT(path, held_out=0.3)
  text = shown(collection, 3)
  for record in collection.read[0]["train"][:3]:
    ids, weights = reference(record)
    where = f"line {record.line}: {len(ids)} tokens, {sum(weights)} in the loss"
    assert where in text
    for turn in record.turns:
      said = f"[[{turn.text}</s>]]"
      assert (said in text) == (turn.role == ASSISTANT)
  assert "120 lines, 120 read, 0 skipped" in text
  coloured = shown(collection, 1, "standard")
  assert "\x1b[1;30;4" in coloured
  assert "[[" not in coloured
  long = shown(collection, 3, lengths={"inputs": 3, "targets": 3})
  assert "not trained on, since it is too long for a row" in long


def test_show_is_for_instruction_data(tmp_path, path, capsys):
  gin = (
    "include 'gin/jobs/train.gin'\ninclude 'gin/models/decoder_tiny.gin'\n"
    "include 'gin/optimisers/adamw.gin'\n"
    "include 'gin/data/flan_jax_vocabulary.gin'\n"
  )
  macros = (
    "MIXTURE_OR_TASK_NAME = 'sft_train'\nEVAL_MIXTURE_OR_TASK_NAME = None\n"
    "TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 64}\nTRAIN_STEPS = 30\n"
    "BATCH_SIZE = 2\nLEARNING_RATE = 0.1\nDROPOUT_RATE = 0.0\n"
  )
  file = tmp_path / "job.gin"
  file.write_text(gin + macros)
  with pytest.raises(UserError, match="TASK_COLLECTION has none"):
    sft_show.run(config.load([str(file)]), 1)
  gin += "include 'gin/data/sft.gin'\n"
  macros += f"TASK_COLLECTION = %SFT\nSFT_FILES = {path!r}\n"
  file.write_text(gin + macros)
  sft_show.run(config.load([str(file)]), 1)
  assert "[[" in capsys.readouterr().out
  with pytest.raises(UserError, match="nearest in use is SFT_FILES"):
    config.load([str(file)], [("SFT_FILE", "a")])
