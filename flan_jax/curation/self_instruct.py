"""Makes instruction data from seeds: Self-Instruct.

  python launch/run.py --gin_file=gin/curate_self_instruct.gin \
      --gin_file=gin/backends/endpoint.gin \
      --gin.BASE_URL=http://localhost:8000/v1 --gin.ENDPOINT_MODEL=my-model

Read top to bottom: seeds -> instructions -> which are classification ->
instances -> files.

Source: Wang et al., 2023, "Self-Instruct" (arXiv 2212.10560).
"""

import functools
import os
from typing import Any

from flan_jax.curation import bootstrap as bootstrap_lib
from flan_jax.curation import instances as instances_lib
from flan_jax.curation import run as run_lib
from flan_jax.curation import seeds as seeds_lib
from flan_jax.curation import wording as wording_lib
from flan_jax.curation.bootstrap import Bootstrap
from flan_jax.curation.growth import Admitted, Growth, grow
from flan_jax.curation.instances import Instances
from flan_jax.curation.wording import Wording
from flan_jax.endpoint.request import Generator

METHOD = "self_instruct"
INSTRUCTIONS = "instructions.jsonl"


def self_instruct(
  *,
  generator: Generator,
  output_dir: str | os.PathLike,
  seeds_path: str | None = None,
  growth: Growth | None = None,
  bootstrap: Bootstrap | None = None,
  instances: Instances | None = None,
  wording: str | Wording = "english",
  include_seeds: bool = True,
) -> dict[str, Any]:
  """Grows instructions from seeds and gives each its instances.

      self_instruct(generator=Checkpoint("checkpoints/smollm2_135m"),
                    growth=Growth(target=20),
                    output_dir="runs/self_instruct")["rows"]
      # 37

  The folder gets `data.jsonl`, rows with `instruction`, `input`, `output`,
  `id` and `provenance`; `instructions.jsonl`, with what each was most similar
  to; `decisions.jsonl`, one for every candidate; `manifest.json`; and
  `journal.jsonl`, from which a stopped run goes on and asks nothing twice.

  Args:
    generator: an `Endpoint` or a `Checkpoint`.
    output_dir: a folder.
    seeds_path: see `seeds.read`; None: those of this package.
    growth: which instructions are admitted, and when to stop.
    bootstrap: how they are asked for.
    instances: how instances are asked for.
    wording: of the prompts, see `wording.WORDINGS`.
    include_seeds: whether the seeds stand in `data.jsonl` too, first.

  Returns:
    Counts, as the manifest has them.

  Raises:
    UserError: seeds that cannot be read or do not suffice, no instruction
      admitted, no instance kept; what the generator raises.
  """
  growth, bootstrap = growth or Growth(), bootstrap or Bootstrap()
  instances = instances or Instances()
  wording = wording_lib.resolve(wording)
  seeds = seeds_lib.read(seeds_path)
  shown = bootstrap_lib.seeds_in_context(bootstrap, seeds)
  wording_lib.check_examples(seeds, True, "the classification test")
  wording_lib.check_examples(seeds, False, "the classification test")
  with run_lib.open_run(METHOD, output_dir, generator) as run:
    grown = grow(
      growth,
      [s.instruction for s in seeds],
      functools.partial(
        bootstrap_lib.ask,
        seeds=shown,
        options=bootstrap,
        wording=wording,
        seed=growth.seed,
      ),
      functools.partial(bootstrap_lib.read, faithful=bootstrap.faithful),
      asker=run.asker,
      decisions=run.decisions,
      method=METHOD,
      say=run.say,
    )
    kinds = instances_lib.classify(
      grown.admitted,
      seeds,
      instances,
      wording,
      asker=run.asker,
      decisions=run.decisions,
    )
    run.say(
      f"{sum(kinds.values()):,} of {len(kinds):,} instructions are"
      " classification"
    )
    made = instances_lib.make(
      grown.admitted,
      kinds,
      seeds,
      instances,
      wording,
      asker=run.asker,
      decisions=run.decisions,
    )
    rows = [
      {
        "instruction": a.instruction,
        "input": given,
        "output": output,
        "id": f"{METHOD}_row_{k:06d}",
        "provenance": run_lib.provenance(
          METHOD, run.asker.model, a, is_classification=kinds[a.id]
        ),
      }
      for k, (a, given, output) in enumerate(made)
    ]
    run.write(INSTRUCTIONS, [_instruction(a, kinds) for a in grown.admitted])
    return run.finish(
      rows,
      seeds=seeds if include_seeds else (),
      inputs={"seeds": seeds_lib.resolve(seeds_path)},
      options={
        "growth": growth,
        "bootstrap": bootstrap,
        "instances": instances,
        "wording": wording,
        "include_seeds": include_seeds,
      },
      model_role="generator",
      table=run_lib.rounds_table(grown.rounds),
      more={
        "instructions": len(grown.admitted),
        "requests_for_instructions": grown.requests,
        "stopped": grown.stopped,
        "rounds": grown.rounds,
      },
    )


def _instruction(a: Admitted, kinds: dict[str, bool]) -> dict[str, Any]:
  """The fields of Self-Instruct's own file, and ours."""
  return {
    "id": a.id,
    "instruction": a.instruction,
    "most_similar": {text: score for text, score in a.nearest},
    "avg_similarity_score": a.mean_similarity,
    "request_idx": a.request,
    "in_context": list(a.seeds),
    "is_classification": kinds.get(a.id),
  }
