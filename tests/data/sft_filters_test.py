"""Filters of instruction data on made and on real conversations."""

import doctest

import pytest

from flan_jax.data import sft, sft_filters
from flan_jax.data.sft_records import ASSISTANT, USER, Turn, conversation
from flan_jax.errors import UserError


def asked(prompt, **metadata):
  return conversation(
    [Turn(USER, prompt), Turn(ASSISTANT, "so")],
    file="f.jsonl", line=len(prompt), metadata=metadata,
  )


def test_docstrings():
  assert doctest.testmod(sft_filters).failed == 0


def test_prompts_with_a_shared_prefix_are_one():
  long = "Write about " + "x" * 300
  rows = [asked(t) for t in (long + "1", "a  b", long + "2", "a b", "a b c")]
  left = sft_filters.shared_prefixes()(rows)
  assert [r.prompt for r in left] == [long + "1", "a  b", "a b c"]
  # White space aside, the first character says it all.
  assert len(sft_filters.shared_prefixes(1)(rows)) == 2


def test_a_user_has_no_more_than_so_many():
  rows = [asked(f"{i}", user_id=i % 2) for i in range(7)]
  left = sft_filters.most_per_user(2)(rows)
  assert [r.prompt for r in left] == ["0", "1", "2", "3"]
  with pytest.raises(UserError, match=r"f.jsonl, line 1: it has no 'who'"):
    sft_filters.most_per_user(2, "who")(rows)


def test_what_is_refused():
  with pytest.raises(UserError, match="characters is 0; give 1 or more"):
    sft_filters.shared_prefixes(0)
  with pytest.raises(UserError, match="most is 0"):
    sft_filters.most_per_user(0)
  with pytest.raises(UserError, match="count is 0"):
    sft_filters.first_rows(0)


def test_on_real_rows_with_a_split_by_users(shared):
  path = str(shared / "instructions" / "dolly_3k.json")
  data = sft.SFT(
    path,
    split_by="category",
    held_out=0.3,
    seed=1,
    filters=(
      sft_filters.shared_prefixes(),
      sft_filters.most_per_user(150, "category"),
    ),
  )
  rows, _ = data.read
  sides = {
    split: {r.metadata["category"] for r in rows[split]}
    for split in ("train", "validation")
  }
  assert all(sides.values())
  assert not sides["train"] & sides["validation"]
  everything = [*rows["train"], *rows["validation"]]
  starts = {" ".join(r.prompt.split())[:200] for r in everything}
  assert len(starts) == len(everything) <= 8 * 150
  # The record of a run says which filters there were, with their options.
  assert "most_per_user" in data._described()
  assert "150" in data._described()


def test_options_of_a_filter_are_a_part_of_the_fingerprint(tmp_path):
  one, other = (
    sft.SFT("x.jsonl", filters=(sft_filters.shared_prefixes(n),))
    for n in (100, 200)
  )
  assert one.tasks()[0].fingerprint() != other.tasks()[0].fingerprint()
