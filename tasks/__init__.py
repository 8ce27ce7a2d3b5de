"""The catalogue: one file per dataset, in the folder of its cluster.

`tasks/` installs as `flan_jax.tasks`. Importing it has no effect and imports
neither seqio nor TensorFlow.

  >>> import flan_jax.tasks as t
  >>> t.register()  # doctest: +SKIP
  >>> import seqio  # doctest: +SKIP
  >>> seqio.get_mixture_or_task("flan_holdout_nli_train")  # doctest: +SKIP
"""


def register(vocabulary=None, **kwargs) -> None:
  """Writes all tasks and mixtures to seqio's registry.

  See `flan_jax.data.catalogue.register`. Where a job takes the name of a
  module instead (T5X's MIXTURE_OR_TASK_MODULE), `flan_jax.tasks.seqio_module`
  does the same when it is imported.
  """
  # Importing this package must stay light; registering cannot be.
  from flan_jax.data import catalogue

  catalogue.register(vocabulary, **kwargs)
