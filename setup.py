"""Packaging. `tasks/` at the top level installs as `flan_jax.tasks`."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent


def packages_below(folder: str, name: str) -> dict[str, str]:
  """Package name -> folder, for `folder` and every package folder in it."""
  found = {}
  for init in sorted((HERE / folder).rglob("__init__.py")):
    path = init.parent.relative_to(HERE)
    parts = (name, *path.parts[1:])
    found[".".join(parts)] = path.as_posix()
  return found


PACKAGES = packages_below("flan_jax", "flan_jax") | packages_below(
  "tasks", "flan_jax.tasks"
)

setuptools.setup(
  name="flan_jax",
  version="0.1.0",
  description="Instruction tuning as one reproducible JAX code base",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=list(PACKAGES),
  package_dir=PACKAGES,
  package_data={
    "flan_jax.data": ["vocabularies/*"],
    "flan_jax.tasks": ["sample/**/*.jsonl"],
  },
)
