"""What all files of chains of thought share: their splits and rationales."""

from flan_jax.data import ops
from flan_jax.data.spec import Splits, last

# Each has one file of training rows; its last 200 are held out.
SPLITS = Splits(
  validation=last("train", 100, 100),
  test=last("train", 100),
  max_train_examples=100_000,
)


def ended(row):
  """Rationales end in a stop, as a conclusion comes after them.

  >>> ended({"rationale": "Cats have fur", ...})  # doctest: +SKIP
  {"rationale": "Cats have fur.", ...}
  """
  return ops.ended(row, "rationale")
