"""Compares the outputs of a model with a reference's by a judge.

  python launch/run.py --gin_file=gin/eval_judge.gin \
      --gin_file=gin/backends/endpoint.gin \
      --gin.BASE_URL=http://localhost:8000/v1 --gin.ENDPOINT_MODEL=my-judge \
      --gin.MODEL_OUTPUTS=answers.jsonl --gin.REFERENCE_OUTPUTS=reference.json

Read top to bottom: outputs -> pairs -> preferences -> win rates -> files.
"""

import collections
import csv
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flan_jax.endpoint.journal import Journal
from flan_jax.endpoint.request import Generator
from flan_jax.errors import UserError
from flan_jax.eval import files, length_control, page_judge, pairs, win_rate
from flan_jax.eval import judge as judge_lib
from flan_jax.training import progress


def judge(
  *,
  judge: Generator,
  comparison: judge_lib.Comparison,
  model_outputs: str,
  reference_outputs: str,
  output_dir: str,
  length_form: str | None = "length_controlled_minimal",
  difficulty_path: str | None = None,
  gamed_path: str | None = None,
  filter_models: Sequence[str] = (),
  curation_manifests: Sequence[str] = (),
) -> dict[str, Any]:
  """Judges every pair and writes win rates and annotations.

      judge(judge=Checkpoint("checkpoints/smollm2_135m"),
            comparison=Comparison(), model_outputs="answers.jsonl",
            reference_outputs="reference.json", output_dir="runs/judge",
            )["win_rate"]["win_rate"]
      # 50.0

  The folder gets `annotations.json`, with the fields of AlpacaEval's files so
  that its tools read them; `failed.json`, pairs without a preference;
  `result.json`; `report.html`, the page; and `journal.jsonl`, from which a
  stopped run goes on.

  Args:
    judge: an `Endpoint` or a `Checkpoint`.
    comparison: how it is asked.
    model_outputs, reference_outputs: files, see `eval/pairs.py`.
    output_dir: a folder; one that holds a finished comparison is written again
      from its journal.
    length_form: of `length_control.FORMS`; None: no such win rate.
    difficulty_path: of the instructions: a JSON file of rows with `instruction`
      and `instruction_difficulty`; or AlpacaEval's CSV by number, for its own
      set in its own order alone.
    gamed_path: AlpacaEval's `df_gamed.csv`.
    filter_models: names of models that chose or made the training data.
    curation_manifests: JSON files of curation runs; the models named in them
      count as `filter_models`.

  Returns:
    What `result.json` holds.

  Raises:
    UserError: files that do not fit, no pair with a preference, what `judge`
      and `length_controlled` refuse.
  """
  if judge is None:
    raise UserError(
      "BACKEND is None: no judge. Add --gin_file=gin/backends/endpoint.gin or"
      " --gin_file=gin/backends/checkpoint.gin."
    )
  display = progress.Display()
  found, notes = pairs.read(model_outputs, reference_outputs)
  difficulties, gamed = None, None
  if length_form is None and (difficulty_path or gamed_path):
    raise UserError(
      "DIFFICULTY_PATH and GAMED_PATH have no effect with LENGTH_CONTROL None."
    )
  if difficulty_path is not None:
    difficulties = read_difficulties(difficulty_path, found, reference_outputs)
  if gamed_path is not None:
    gamed = read_gamed(gamed_path)
  folder = pathlib.Path(output_dir)
  filters = [*filter_models, *manifest_models(curation_manifests)]
  with Journal(folder / "journal.jsonl") as journal:
    for note in (*notes, *journal.notes):
      display.say(note)
    shown = [0]

    def tell(done: int, total: int):
      if done * 20 // total > shown[0] or done == total:
        shown[0] = done * 20 // total if done < total else 0
        display.say(f"{done:,} of {total:,} answers")

    judged = judge_lib.judge(
      found, judge, comparison, journal=journal, progress=tell
    )
    totals = dataclasses.asdict(journal.totals)
  name = judge.identity["model"]
  result = summary(
    judged, comparison, length_form, difficulties=difficulties, gamed=gamed
  )
  result = {
    "judge": dict(judge.identity),
    "comparison": dataclasses.asdict(comparison),
    **result,
    "flags": shared_models(name, filters, found[0]),
    "filter_models": sorted(set(filters)),
    "notes": notes,
    "totals": totals,
  }
  written = {
    "annotations.json": judge_lib.annotations(judged, name),
    "failed.json": judge_lib.failures(judged),
    "result.json": result,
  }
  texts = {
    file: json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    for file, value in written.items()
  }
  texts["report.html"] = page_judge.render(result, judged)
  files.write(folder, texts, "result")
  _show(display, result, folder)
  return result


def summary(
  judged: Sequence[judge_lib.Judged],
  comparison: judge_lib.Comparison,
  length_form: str | None,
  *,
  difficulties: Sequence[float] | None = None,
  gamed: length_control.Gamed | None = None,
) -> dict[str, Any]:
  """Win rates, counts and costs of judged pairs.

  Raises:
    UserError: no pair has a preference; see `length_controlled`.
  """
  kept = [n for n, j in enumerate(judged) if j.preference is not None]
  failed = [j for j in judged if j.preference is None]
  reasons = collections.Counter(_kind(j.error) for j in failed)
  if not kept:
    raise UserError(
      f"none of {len(judged):,} pairs has a preference; the first one says:"
      f" {failed[0].error}. SCORING='verdict' needs no log-probabilities."
    )
  chosen = [judged[n] for n in kept]
  preferences = [j.preference for j in chosen]
  lengths_1, lengths_2 = pairs.lengths([j.pair for j in chosen])
  out = {
    "generator_1": chosen[0].pair.generator_1,
    "generator_2": chosen[0].pair.generator_2,
    "win_rate": dataclasses.asdict(win_rate.win_rate(preferences)),
    "n_failed": len(failed),
    "failed": dict(reasons),
    "avg_length_1": sum(lengths_1) / len(chosen),
    "avg_length_2": sum(lengths_2) / len(chosen),
    "first_shown": judge_lib.first_shown(judged),
    "tokens": sum(j.tokens for j in judged),
    "cost": sum(j.cost for j in judged),
  }
  asked = [j for j in chosen if len(j.by_order) == 2]
  if comparison.order == "both" and asked:
    in_order = [dict(j.by_order) for j in asked]
    out["both_orders"] = win_rate.both_orders(
      [o[False] for o in in_order], [o[True] for o in in_order]
    )
    agree = [(o[False] > 1.5) == (o[True] > 1.5) for o in in_order]
    out["both_orders"]["agreement"] = sum(agree) / len(agree)
  if length_form is not None:
    controlled = length_control.length_controlled(
      preferences,
      lengths_1,
      lengths_2,
      form=length_form,
      difficulties=(
        None if difficulties is None else [difficulties[n] for n in kept]
      ),
      gamed=gamed,
    )
    fields = dataclasses.asdict(controlled)
    del fields["preferences"]
    out["length_controlled"] = fields
  return out


def shared_models(
  judge: str, filters: Iterable[str], pair: pairs.Pair
) -> list[str]:
  """Sentences about a judge that is not independent of what it judges.

  >>> pair = pairs.Pair("i", "a", "b", "davinci-003", "mine")
  >>> shared_models("openai/gpt-4-0613", ["GPT-4"], pair)
  ["the judge 'openai/gpt-4-0613' also chose or made training data (as\
 'GPT-4'): it may prefer what it chose."]

  Args:
    judge: the judge's name.
    filters: names of models that chose or made the training data.
    pair: any pair, for the names of the two models.
  """
  out = []
  for name in sorted(set(filters)):
    if _same_model(judge, name):
      out.append(
        f"the judge {judge!r} also chose or made training data (as {name!r}):"
        " it may prefer what it chose."
      )
  for name in dict.fromkeys((pair.generator_1, pair.generator_2)):
    if _same_model(judge, name):
      out.append(
        f"the judge {judge!r} judges its own outputs (as {name!r}): it may"
        " prefer them."
      )
  return out


def manifest_models(paths: Iterable[str | os.PathLike]) -> list[str]:
  """Every model that curation manifests name, in any `model` or `models`.

  Raises:
    UserError: a file cannot be read or is no JSON.
  """
  out: list[str] = []

  def look(value):
    if isinstance(value, Mapping):
      for key, inner in value.items():
        named = inner if isinstance(inner, list) else [inner]
        if key in ("model", "models"):
          out.extend(n for n in named if isinstance(n, str))
        look(inner)
    elif isinstance(value, list):
      for inner in value:
        look(inner)

  for path in paths:
    try:
      look(json.loads(pathlib.Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as e:
      reason = getattr(e, "strerror", None) or e
      raise UserError(
        f"CURATION_MANIFESTS {path} cannot be read: {reason}."
      ) from None
  return out


def read_difficulties(
  path: str | os.PathLike,
  found: Sequence[pairs.Pair],
  reference_outputs: str | os.PathLike,
) -> list[float]:
  """A difficulty for each pair.

  A CSV has no instructions, so it is taken only where every row of the
  reference is compared and there are as many difficulties.

  Raises:
    UserError: an instruction without one, or a CSV of another set.
  """
  path = pathlib.Path(path)
  if path.suffix == ".csv":
    rows = _read_csv(path, "DIFFICULTY_PATH", ("instruction_difficulty",))
    count = len(pairs.read_rows(reference_outputs, "REFERENCE_OUTPUTS"))
    if not len(rows) == count == len(found):
      raise UserError(
        f"DIFFICULTY_PATH {path} has {len(rows):,} difficulties by number, for"
        f" {count:,} reference rows of which {len(found):,} are compared: they"
        " cannot be told apart. Give a JSON file of rows with 'instruction' and"
        " 'instruction_difficulty', or LENGTH_CONTROL"
        " 'length_controlled_minimal'."
      )
    return [row["instruction_difficulty"] for row in rows]
  table = {
    row.get("instruction"): row.get("instruction_difficulty")
    for row in pairs.read_rows(path, "DIFFICULTY_PATH")
  }
  missing = [
    p.instruction
    for p in found
    if not isinstance(table.get(p.instruction), int | float)
  ]
  if missing:
    raise UserError(
      f"DIFFICULTY_PATH {path} has no 'instruction_difficulty' for"
      f" {len(missing):,} of {len(found):,} instructions; the first is"
      f" {missing[0][:60]!r}."
    )
  return [float(table[p.instruction]) for p in found]


def read_gamed(path: str | os.PathLike) -> length_control.Gamed:
  """The gamed baselines' rows from AlpacaEval's `df_gamed.csv`."""
  names = ("preference", "std_delta_len", "instruction_difficulty")
  rows = _read_csv(pathlib.Path(path), "GAMED_PATH", names)
  return length_control.Gamed(*([row[n] for row in rows] for n in names))


def _read_csv(path, name, columns) -> list[dict[str, float]]:
  try:
    with path.open(newline="", encoding="utf-8") as file:
      rows = list(csv.DictReader(file))
    return [{c: float(row[c]) for c in columns} for row in rows]
  except OSError as e:
    raise UserError(f"{name} {path} cannot be read: {e.strerror}.") from None
  except (KeyError, TypeError, ValueError) as e:
    raise UserError(
      f"{name} {path} must have columns {', '.join(columns)} of numbers: {e}."
    ) from None


def _same_model(a: str, b: str) -> bool:
  return _stem(a) == _stem(b)


def _stem(name: str) -> str:
  """A model's name without its provider, date and small print.

  >>> _stem("openai/gpt-4-1106-preview"), _stem("gpt-4-2024-05-13")
  ('gpt-4', 'gpt-4')
  """
  name = name.rsplit("/", 1)[-1].lower().replace("_", "-")
  name = re.sub(r"-(preview|latest)$", "", name)
  return re.sub(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4})$", "", name)


def _kind(error: str) -> str:
  """The sort of failure, for the count."""
  if not error.startswith("no answer"):
    return "no verdict"
  found = re.search(r"HTTP (\d{3})", error)
  if found:
    return f"HTTP {found[1]}"
  if "no whole response" in error:
    return "timeout"
  if "log-probabilities" in error or "none of" in error:
    return "no letter among the likeliest tokens"
  return "no answer"


def _show(display, result, folder):
  rate = result["win_rate"]
  low, high = rate["interval"]
  rows = [
    ("win rate, %", f"{rate['win_rate']:.1f}  ({low:.1f} to {high:.1f})"),
    ("discrete win rate, %", f"{rate['discrete_win_rate']:.1f}"),
  ]
  controlled = result.get("length_controlled")
  if controlled:
    rows.append(
      (
        f"{controlled['form'].replace('_', ' ')}, %",
        f"{controlled['win_rate']:.1f}",
      )
    )
  rows += [
    (
      "wins, losses, draws",
      f"{rate['n_wins']}, {rate['n_wins_base']}, {rate['n_draws']}",
    ),
    ("pairs without a preference", f"{result['n_failed']}"),
    (
      "mean characters, reference and model",
      f"{result['avg_length_1']:.0f}, {result['avg_length_2']:.0f}",
    ),
    ("tokens, cost", f"{result['tokens']:,}, {result['cost']:.4f}"),
  ]
  if result["first_shown"] is not None:
    rows.append(
      ("preference for what is shown first", f"{result['first_shown']:.2f}")
    )
  title = f"{result['generator_2']} against {result['generator_1']}"
  display.table(f"{title}, {rate['n_total']:,} pairs", ("", ""), rows)
  for reason, count in result["failed"].items():
    display.say(f"excluded: {count:,} pairs, {reason}")
  if controlled and controlled["warning"]:
    display.say(f"note: {controlled['warning']}")
  for flag in result["flags"]:
    display.say(f"flag: {flag}")
  display.say(f"written to {folder}")
