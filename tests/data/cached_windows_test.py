"""Rows of cached input: mixing, shuffling and packing by place alone."""

import doctest
import math
import time

import numpy as np
import pytest

from flan_jax.data import cached_windows
from flan_jax.data.cached_windows import Windows


def sizes(n, seed, room=(64, 16)):
  draw = np.random.default_rng(seed)
  out = np.stack(
    [draw.integers(3, room[0] // 2, n), draw.integers(1, room[1] // 2, n)], 1
  )
  return out.astype(np.int32)


def made(seed=0, **changes):
  arguments = {
    "sizes": [sizes(40, 1), sizes(300, 2), sizes(7, 3)],
    "draws": [[20, 20], [300], [7]],
    "rates": [0.3, 0.6, 0.1],
    "room": (64, 16),
    "seed": seed,
    "window": 500,
    **changes,
  }
  return Windows(**arguments)


def rows(windows, begin, end):
  return [windows.row(n) for n in range(begin, end)]


def test_docs():
  assert doctest.testmod(cached_windows).failed == 0


@pytest.mark.parametrize("tasks", [1, 2, 5, 70, 1800])
def test_counts_are_the_rates_over_any_stretch(tasks):
  draw = np.random.default_rng(tasks)
  rates = draw.dirichlet(np.full(tasks, 0.3))
  tree = cached_windows._Tree(rates, seed=3)
  before = np.zeros(tasks, np.int64)
  for n in np.unique([*range(30), *draw.integers(0, 10**9, 20), 10**12]):
    counts = tree.split(int(n))
    assert counts.sum() == n
    assert (counts >= before).all()
    bound = math.log2(tasks) + 2 + n * 1e-12
    assert np.abs(counts - n * rates).max() <= bound
    before = counts


def test_every_epoch_of_a_task_has_each_record_of_its_draw_once():
  windows = made()
  streams = {0: [], 1: [], 2: []}
  for number in range(6):
    begin, end = (windows.counts(500 * (number + i)) for i in (0, 1))
    for task, stream in streams.items():
      stream += windows._records(task, begin[task], end[task]).tolist()
  first, second = streams[0][:20], streams[0][20:40]
  assert sorted(first) == list(range(20))
  assert sorted(second) == list(range(20, 40))
  # The next cycle, in another order.
  assert sorted(streams[0][40:60]) == list(range(20))
  assert streams[0][40:60] != first
  for task, n in ((1, 300), (2, 7)):
    stream = streams[task]
    for epoch in range(len(stream) // n):
      assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_a_window_s_rows_hold_its_examples_once_and_none_overflows():
  windows = made()
  for number in range(4):
    per = windows.rows_per_window
    taken = rows(windows, number * per, (number + 1) * per)
    got = [(t, r) for row in taken for t, r in zip(*row, strict=True)]
    wanted = list(zip(*windows.examples(number), strict=True))
    assert windows.left == 0
    assert sorted(got) == sorted(wanted)
    for tasks, records in taken:
      assert len(tasks)
      total = sum(
        windows._sizes[t][r] for t, r in zip(tasks, records, strict=True)
      )
      assert (total <= (64, 16)).all()


def test_a_row_is_a_function_of_seed_and_place():
  once = made()
  again = made()
  far = again.row(10**9)
  for number in (0, 3, 77, 10**9):
    for a, b in zip(once.row(number), again.row(number), strict=True):
      np.testing.assert_array_equal(a, b)
  assert len(far[0])
  other = made(seed=1).row(10**9)
  assert [x.tolist() for x in far] != [x.tolist() for x in other]


def test_the_order_is_this_one_on_every_machine():
  order = cached_windows._permutation(8, 0, 1, 2)
  assert order.tolist() == [7, 2, 3, 4, 5, 1, 0, 6]


def test_far_rows_cost_what_near_ones_do():
  windows = made()
  windows.row(0)
  began = time.process_time()
  windows.row(5 * windows.rows_per_window)
  near = time.process_time() - began
  began = time.process_time()
  windows.row(10**15)
  assert time.process_time() - began < 5 * near + 0.05


def test_without_packing_a_row_is_one_example():
  windows = made(pack=False)
  taken = rows(windows, 0, 1000)
  assert all(len(tasks) == 1 for tasks, _ in taken)
  counted = np.bincount([int(t[0]) for t, _ in taken], minlength=3)
  np.testing.assert_array_equal(counted, windows.counts(1000))


def plain_first_fit(lengths, room):
  """As textbooks have it, one example after the other."""
  out, free = [], []
  for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    for r in range(len(out)):
      if free[r] >= lengths[i]:
        out[r].append(i)
        free[r] -= lengths[i]
        break
    else:
      out.append([i])
      free.append(room - lengths[i])
  return out


def test_first_fit_is_the_textbook_s():
  draw = np.random.default_rng(0)
  lengths = np.clip(draw.lognormal(3, 0.8, 900), 2, 100).astype(int)
  found = cached_windows.first_fit(lengths, 100)
  assert found == plain_first_fit(lengths.tolist(), 100)


def test_a_decoder_s_rows_waste_less_than_two_per_cent():
  draw = np.random.default_rng(0)
  lengths = np.clip(draw.lognormal(4, 0.7, 30_000), 8, 400).astype(np.int32)
  both = np.repeat(lengths[:, None], 2, axis=1)
  windows = made(
    sizes=[both], draws=[[len(both)]], rates=[1.0], room=(512, 512), window=None
  )
  used = sum(int(lengths[windows.examples(w)[1]].sum()) for w in range(2))
  for w in range(2):
    windows.row(w * windows.rows_per_window)
  assert windows.left == 0
  waste = 1 - used / (2 * windows.rows_per_window * 512)
  assert 0 < waste < 0.02


def test_what_finds_no_room_is_counted_and_said(caplog):
  windows = made()
  windows.rows_per_window -= 20
  windows._tried.clear()
  windows.row(0)
  assert windows.left > 0
  assert f"{windows.left} of the 500 examples of window 0" in caplog.text
