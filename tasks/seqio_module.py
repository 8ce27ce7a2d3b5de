"""Registers flan_jax's tasks and mixtures with seqio when it is imported.

That is its only purpose: give its name, `flan_jax.tasks.seqio_module`, where a
job asks for a MIXTURE_OR_TASK_MODULE.
"""

from flan_jax import tasks

tasks.register()
