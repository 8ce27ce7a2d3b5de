import dataclasses
import re
import subprocess
import sys
import types

import pytest
import seqio

from flan_jax.data import catalogue, sources, spec, template
from flan_jax.errors import UserError
from tests.data import made


@pytest.fixture
def registry():
  """seqio's registry as it was before, whatever a test writes."""
  catalogue.unregister()
  yield
  catalogue.unregister()


def names():
  return {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}


def test_get_names_the_nearest():
  assert catalogue.get("rte").paper_name == "RTE"
  message = "There is no task 'mnli_match'; the nearest is 'mnli_matched'."
  with pytest.raises(UserError, match=re.escape(message)):
    catalogue.get("mnli_match")


def test_clusters():
  assert "trec" in catalogue.clusters()["misc"]
  assert catalogue.cluster_of("rte") == "natural_language_inference"
  assert catalogue.cluster_of("true_case") == "misc"
  flat = [n for tasks in catalogue.clusters().values() for n in tasks]
  extras = [n for tasks in catalogue.table.EXTRAS.values() for n in tasks]
  assert sorted(flat + extras) == sorted(catalogue.load())
  assert not set(flat) & set(extras)


def test_register_twice_and_with_another_vocabulary(registry):
  catalogue.register(made.BYTES)
  first = seqio.get_mixture_or_task("flan_rte")
  written = names()
  assert {"flan_rte", "flan_rte_template_9", "flan_all_train"} <= written
  catalogue.register(made.BYTES)
  assert seqio.get_mixture_or_task("flan_rte") is first
  other = seqio.ByteVocabulary(extra_ids=7)
  catalogue.register(other)
  again = seqio.get_mixture_or_task("flan_rte")
  assert again.output_features["inputs"].vocabulary == other
  assert names() == written
  catalogue.register(other, wrapper=template.FLAN_CUE)
  assert seqio.get_mixture_or_task("flan_rte") is not again
  assert isinstance(again.source, sources.TfdsSource)


def test_name_that_another_project_has(registry):
  seqio.TaskRegistry.add(
    "flan_rte",
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files: None, ["train"]
    ),
    output_features={},
  )
  try:
    with pytest.raises(UserError, match="'flan_rte' already, registered by"):
      catalogue.register(made.BYTES)
  finally:
    seqio.TaskRegistry.remove("flan_rte")


@pytest.mark.slow
def test_register_from_another_folder_as_documented(tmp_path):
  code = (
    "import flan_jax.tasks.seqio_module, seqio;"
    " print(seqio.get_mixture_or_task('flan_holdout_nli_train').name)"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
  ).stdout
  assert out.strip() == "flan_holdout_nli_train"


def load_with(monkeypatch, modules, folders=()):
  """catalogue.load over a made table: {"cluster/name": module content}."""
  table = {}
  for path in modules:
    cluster, _, name = path.partition("/")
    table.setdefault(cluster, []).append(name)

  def import_module(name):
    path = name.removeprefix("flan_jax.tasks.").replace(".", "/")
    if path in table:
      return types.SimpleNamespace(__path__=[str(folders)])
    if modules[path] is None:
      raise ModuleNotFoundError(name=name)
    return types.SimpleNamespace(**modules[path])

  monkeypatch.setattr(catalogue.importlib, "import_module", import_module)
  monkeypatch.setattr(
    catalogue.table, "CLUSTERS", {c: tuple(n) for c, n in table.items()}
  )
  monkeypatch.setattr(catalogue.table, "EXTRAS", {})
  return catalogue.load.__wrapped__()


@pytest.mark.parametrize(
  ("modules", "message"),
  [
    ({"nli/made": None}, "tasks/nli/made.py does not exist, but tasks/clus"),
    ({"nli/made": {}}, "tasks/nli/made.py has no TASK = Task"),
    (
      {"nli/other": {"TASK": made.nli()}},
      "tasks/nli/other.py: its TASK is called 'made'; a task has the name",
    ),
    (
      {
        "nli/made": {"TASK": made.nli(family="f")},
        "qa/more": {"TASK": made.nli(name="more", family="f")},
      },
      "task 'more': its family 'f' is in cluster 'nli'",
    ),
  ],
)
def test_files_and_table_that_disagree(monkeypatch, tmp_path, modules, message):
  with pytest.raises(spec.SpecError, match=message):
    load_with(monkeypatch, modules, tmp_path)


def test_file_that_the_table_does_not_list(monkeypatch, tmp_path):
  (tmp_path / "stray.py").write_text("")
  with pytest.raises(spec.SpecError, match="nli/stray.py is not in tasks/clus"):
    load_with(monkeypatch, {"nli/made": {"TASK": made.nli()}}, tmp_path)


LIMIT = 3


def _keep(row):
  """Says one thing."""
  return row["label"] < LIMIT


def test_fingerprint_changes_with_what_decides_the_examples(monkeypatch):
  task = made.nli(keep=_keep)
  same = catalogue.fingerprint(task)
  assert re.fullmatch("[0-9a-f]{12}", same)
  changed = [
    made.nli(),
    dataclasses.replace(task, source=spec.tfds("made_nli:1.0.1")),
    dataclasses.replace(task, templates=task.templates[::-1]),
    dataclasses.replace(task, choices=("no", "yes")),
    dataclasses.replace(
      task, splits=spec.Splits(validation=spec.last("train", 5), test="test")
    ),
  ]
  prints = {catalogue.fingerprint(t) for t in changed}
  assert len(prints) == len(changed)
  assert same not in prints
  noted = dataclasses.replace(task, notes=("said",), metrics=("f1_binary",))
  assert catalogue.fingerprint(noted) == same
  monkeypatch.setattr(sys.modules[__name__], "LIMIT", 2)
  assert catalogue.fingerprint(task) != same


def test_fingerprints_of_the_catalogue_differ():
  prints = {catalogue.fingerprint(t) for t in catalogue.load().values()}
  assert len(prints) == len(catalogue.load())
