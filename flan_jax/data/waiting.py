"""Which task a stream of a mixture waits for, should it stand still.

tf.data draws from the tasks of a mixture one after the other, inside a graph
that cannot be looked into. So each task is zipped with a stream that writes
down, when it is asked for an example, which task that was.
"""

import copy

import seqio


class Waiting:
  """Remembers the task that was asked for an example last.

  >>> waiting = Waiting()
  >>> mixture = waiting.watched(mixture, "train")  # doctest: +SKIP
  >>> waiting.task  # doctest: +SKIP
  'flan_sst2'
  """

  def __init__(self):
    self._names: list[str] = []
    self._last = None

  @property
  def task(self) -> str | None:
    """The name; None before the first example is asked for."""
    if self._last is None:
      return self._names[0] if self._names else None
    index = int(self._last.numpy())
    return self._names[index] if index >= 0 else None

  def reads(self, name: str) -> None:
    """Says what is waited for where no mixture is watched."""
    self._names = [name]

  def watched(
    self, mixture: seqio.Mixture | seqio.Task, split: str
  ) -> seqio.Mixture | seqio.Task:
    """The same mixture, whose streams tell what they are asked for."""
    if not isinstance(mixture, seqio.Mixture):
      self._names = [mixture.name]
      return mixture
    self._names = [t.name for t in mixture.tasks if split in t.splits]
    draw = mixture._sample_fn

    def sample(datasets, weights, seed):
      import tensorflow as tf

      if len(datasets) != len(self._names):
        return draw(datasets, weights, seed)
      with tf.device("CPU"):
        self._last = tf.Variable(-1, dtype=tf.int64, trainable=False)
      told = [self._told(d, i) for i, d in enumerate(datasets)]
      return draw(told, weights, seed)

    # seqio has no way to change how a mixture draws but making it anew, which
    # asks for the tasks by name; not all are registered.
    watched = copy.copy(mixture)
    watched._sample_fn = sample
    return watched

  def _told(self, dataset, index: int):
    import tensorflow as tf

    last = self._last

    def ask(_):
      with tf.control_dependencies([last.assign(index)]):
        return tf.zeros((), tf.bool)

    asked = tf.data.Dataset.from_tensors(False).repeat().map(ask)
    return tf.data.Dataset.zip((asked, dataset)).map(lambda _, x: x)
