import tensorflow as tf

from flan_jax.data import ops


def test_clean():
  row = {"a": tf.constant(" x<br />y "), "b": tf.constant([" p", "q "])}
  out = ops.clean(row, "a", "b", replace=[("<br />", "\n"), ("y", "z")])
  assert out["a"] == "x\nz"
  assert out["b"].numpy().tolist() == [b"p", b"q"]
  assert row["a"] == " x<br />y "


def test_listed_and_accepted_leave_the_rest():
  row = {"target": tf.constant("a"), "references": tf.constant(["b", "a"])}
  out = ops.listed(ops.accepted(row), row["references"], "one", "many")
  assert out["answers"].numpy().tolist() == [b"a", b"b"]
  assert (out["one"], out["many"]) == ("b; a", "b\na")
  assert out["target"] is row["target"]


def test_numbered_stops_at_the_most():
  texts = tf.constant([f"t{i}" for i in range(12)])
  lines = ops.numbered({}, texts, "list")["list"].numpy().decode().split("\n")
  assert lines == [f"{i + 1}. t{i}" for i in range(10)]
  assert ops.numbered({}, texts[:0], "list")["list"] == ""
