import tensorflow as tf

from flan_jax.data import ops

ROW = {"a": tf.constant(" x<br />y "), "b": tf.constant(["p", "q"])}


def test_replace_strip_and_join_leave_the_rest():
  assert ops.replace(ROW, "a", "<br />", "\n")["a"] == " x\ny "
  assert ops.strip(ROW, "a")["a"] == "x<br />y"
  assert ops.join(ROW, "b")["b"] == "p, q"
  assert ops.join(ROW, "b")["a"] is ROW["a"]
  assert ROW["a"] == " x<br />y "


def test_distinct():
  assert ops.distinct(ROW, "b")
  assert not ops.distinct({"b": tf.constant(["p", "p"])}, "b")
  same = {"a": tf.constant("x"), "b": tf.constant("x")}
  assert not ops.distinct(same, "a", "b")
