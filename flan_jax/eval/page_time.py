"""The report's part about time: where it went, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.eval.page_text import last
from flan_jax.page.markup import table, text

# Category of `training/accounting.py` -> what it is.
MEANING = {
  "start": "starting: imports, data, parameters",
  "compile": "compiling",
  "step": "training steps",
  "input": "waiting for input",
  "checkpoint": "waiting for checkpoints",
  "evaluation": "evaluating",
  "lost": "lost: done again after a restart",
  "idle": "idle, between two starts included",
}


def spent(run: Mapping[str, Any], curves: Sequence[Mapping[str, Any]]) -> str:
  """A table of seconds by category, and lines about speed and memory.

  >>> "41.0" in spent({"time": {"step": 41.0, "wall": 50.0}}, [])
  True

  Args:
    run: `time`: category -> seconds, and `wall`; `speed`, from
      `training/meter.py: Meter.summary`. Without `time` nothing is shown.
    curves: rows of the metrics log.
  """
  seconds = run.get("time")
  if not seconds:
    return ""
  wall = seconds["wall"] or 1.0
  rows = [
    f"<tr><td class='text'>{text(MEANING.get(name, name))}</td>"
    f"<td>{value:,.1f}</td><td>{100 * value / wall:.1f} %</td></tr>"
    for name, value in seconds.items()
    if name != "wall"
  ]
  total = sum(value for name, value in seconds.items() if name != "wall")
  rows.append(
    "<tr class='cluster'><td class='text'>sum</td>"
    f"<td>{total:,.1f}</td><td>{100 * total / wall:.1f} %</td></tr>"
  )
  head = "<h2>Time</h2>" + table(["", "seconds", "of the wall time"], rows, 1)
  return head + _speed(run.get("speed") or {}, curves)


def _speed(speed: Mapping[str, Any], curves) -> str:
  said = []
  for key, form in (
    ("train/tokens_per_second", "{:,.0f} tokens a second, padding not counted"),
    ("train/mfu", "{:.1%} of the peak in the model's own operations (MFU)"),
  ):
    values = sorted(
      r[key] for r in curves if isinstance(r.get(key), int | float)
    )
    if values:
      said.append(form.format(values[len(values) // 2]))
  if speed.get("peak_flops"):
    how = ", measured by a matrix product" if speed.get("measured") else ""
    said.append(
      f"peak {speed['peak_flops'] / 1e12:,.3g} TFLOP/s of"
      f" {speed['devices']} x {text(speed['device'])}{how}"
    )
  held = last(curves, "memory/peak_gib") or speed.get("peak_gib")
  if held:
    said.append(f"{held:.2f} GiB held at most")
  if not said:
    return ""
  return f"<p class='muted small'>Medians: {'; '.join(said)}.</p>"
