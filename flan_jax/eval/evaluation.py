"""Evaluation: what one model scores on the held-out tasks, as one value.

It is made by `flan_jax/evaluate.py`, read by `report.py` and the trainer, and
goes to JSON and back without loss.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from flan_jax.eval import protocol


@dataclasses.dataclass(frozen=True)
class Sample:
  """One prompt with the model's answer, to be looked at.

  Attributes:
    scores: one per choice (nats); empty for free text.
    answer: chosen or generated text.
    expected: the right choice, or the first reference.
    correct: None for free text.
  """

  task: str
  template: int
  index: int
  prompt: str
  choices: tuple[str, ...]
  scores: tuple[float, ...]
  answer: str
  expected: str
  correct: bool | None


@dataclasses.dataclass(frozen=True)
class Confusion:
  """How often each class of a task was taken for each, over all templates.

  Attributes:
    classes: their texts.
    counts: [expected][answered]; a last column more than there are classes
      counts generated answers that are none of them.
    named_by: the template whose texts `classes` has; None where all templates
      have the same.
  """

  classes: tuple[str, ...]
  counts: tuple[tuple[int, ...], ...]
  named_by: int | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Results of one model on a set of held-out tasks; JSON and back.

  Attributes:
    tasks: by name, in the order given.
    clusters: means by cluster.
    samples: the same prompts for every model evaluated on the set.
    split: the split that is reported.
    examples: (row, template) pairs scored or answered, all splits.
    seconds: wall time of the model's part.
    cut: generated answers that reached the length limit, by task.
    score: one of `rank.SCORES`, by which choices were ranked.
    by_score: every score that choices have -> task -> what its main metric
      would be by that score, mean over templates.
    unmatched: generated answers that are none of the choices, by task; they
      count as wrong.
    options_shown: whether prompts listed the options.
    worst: the most confidently wrong choices, and free texts that score
      lowest, of each task.
    random: some prompts of each task, the same for every model.
    confusions: of tasks that have classes.
    interval: 95 % bootstrap interval of `mean`, for these tasks; None where
      their draws are not there.
  """

  tasks: Mapping[str, protocol.TaskResult]
  clusters: Mapping[str, protocol.ClusterResult]
  samples: tuple[Sample, ...]
  split: str
  examples: int
  seconds: float
  cut: Mapping[str, int]
  score: str
  by_score: Mapping[str, Mapping[str, float]] = dataclasses.field(
    default_factory=dict
  )
  unmatched: Mapping[str, int] = dataclasses.field(default_factory=dict)
  options_shown: bool = True
  worst: tuple[Sample, ...] = ()
  random: tuple[Sample, ...] = ()
  confusions: Mapping[str, Confusion] = dataclasses.field(default_factory=dict)
  interval: tuple[float, float] | None = None

  def __post_init__(self):
    if self.interval is None:
      drawn = protocol.overall_interval(self.tasks.values())
      object.__setattr__(self, "interval", drawn)

  @property
  def mean(self) -> float:
    """Mean over clusters of the cluster means: one number for a checkpoint."""
    means = [c.mean for c in self.clusters.values()]
    return sum(means) / len(means)

  @property
  def headline(self) -> dict[str, float]:
    """Scalars for a log, such as `eval/rte/accuracy_mean`.

    Per task and metric `_mean`, `_median` and (with development rows)
    `_best_dev`; per cluster `eval/cluster/<name>`; and `eval/mean`.
    """
    out = {}
    for task in self.tasks.values():
      for name, result in task.metrics.items():
        stem = f"eval/{task.task}/{name}"
        out[f"{stem}_mean"] = result.spread.mean
        out[f"{stem}_median"] = result.spread.median
        if result.best_dev_score is not None:
          out[f"{stem}_best_dev"] = result.best_dev_score
    for name, cluster in self.clusters.items():
      out[f"eval/cluster/{name or 'none'}"] = cluster.mean
    out["eval/mean"] = self.mean
    return out

  def to_json(self) -> dict[str, Any]:
    """Plain dicts, lists, texts and numbers."""
    tasks = {
      name: dataclasses.replace(task, draws=None)
      for name, task in self.tasks.items()
    }
    value = dataclasses.asdict(dataclasses.replace(self, tasks=tasks))
    for task in value["tasks"].values():
      del task["draws"]
    return json.loads(json.dumps(value))

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> "Evaluation":
    """The inverse of `to_json`."""
    return cls(
      **{
        **value,
        **_intervals(value),
        "tasks": {k: _task_result(v) for k, v in value["tasks"].items()},
        "clusters": {
          k: protocol.ClusterResult(
            **{**v, "tasks": tuple(v["tasks"])} | _intervals(v)
          )
          for k, v in value["clusters"].items()
        },
        **{
          name: tuple(map(_sample, value.get(name, ())))
          for name in ("samples", "worst", "random")
        },
        "confusions": {
          k: Confusion(
            tuple(c["classes"]), tuple(map(tuple, c["counts"])), c["named_by"]
          )
          for k, c in value.get("confusions", {}).items()
        },
      }
    )


def _sample(value: Mapping[str, Any]) -> Sample:
  lists = {name: tuple(value[name]) for name in ("choices", "scores")}
  return Sample(**{**value, **lists})


def _intervals(value: Mapping[str, Any]) -> dict[str, tuple | None]:
  return {
    name: pair and tuple(pair)
    for name, pair in value.items()
    if name.endswith("interval")
  }


def _task_result(value: Mapping[str, Any]) -> protocol.TaskResult:
  def scores(by_template):
    return {int(t): s for t, s in by_template.items()}

  results = {
    name: protocol.MetricResult(
      **{
        **m,
        "scores": scores(m["scores"]),
        "dev_scores": scores(m["dev_scores"]),
        "spread": protocol.Spread(**m["spread"]),
        **_intervals(m),
      }
    )
    for name, m in value["metrics"].items()
  }
  return protocol.TaskResult(
    **{
      **value,
      "templates": tuple(value["templates"]),
      "metric_names": tuple(value.get("metric_names", ())),
      "metrics": results,
    }
  )
