"""Evaluates whether a checkpoint scores the right response above others'.

  python launch/run.py --gin_file=gin/eval_response_ranking.gin \
      --gin.INITIAL_CHECKPOINT_PATH=checkpoints/smollm2_135m \
      --gin.SFT_FILES=data/rows.jsonl

Read top to bottom: rows -> pairs -> scores -> files. See
`eval/response_ranking.py`.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax import evaluated
from flan_jax.data import collection, mixtures, template
from flan_jax.data import directory as directory_lib
from flan_jax.data import vocabulary as vocabulary_lib
from flan_jax.errors import UserError
from flan_jax.eval import files as files_lib
from flan_jax.eval import page_text, rank, response_ranking
from flan_jax.eval.evaluation_set import EvaluationSet
from flan_jax.training import checks, processes, sharding
from flan_jax.training import progress as progress_lib
from flan_jax.training import record as record_lib


def evaluate_response_ranking(
  *,
  initial_checkpoint_path: str,
  eval_mixture_or_task_name: str,
  task_feature_lengths: Mapping[str, int],
  task_collection: Any = None,
  split: str = "test",
  other_responses: int = response_ranking.OTHERS,
  eval_examples: int | None = response_ranking.INSTRUCTIONS,
  seed: int = 0,
  output_dir: str | os.PathLike | None = None,
  model: Any = None,
  vocabulary: Any = None,
  batch_size: int = 8,
  tfds_data_dir: str | None = None,
  layout: sharding.Layout | None = None,
) -> pathlib.Path:
  """Ranks every instruction's response among others' and writes the table.

  Args:
    initial_checkpoint_path: a checkpoint of any format in `convert/source.py`.
    eval_mixture_or_task_name: whose rows are instructions and responses; of
      the catalogue, or of `task_collection`.
    task_feature_lengths: limits in tokens.
    task_collection: a `data/collection.py: Collection` to register.
    split: "test" or "validation".
    other_responses: that each instruction's own is compared with.
    eval_examples: instructions, drawn by `seed`; None: all.
    seed: of the draws.
    output_dir: where the files go; None: a folder of its own under `runs/`.
    model: None: what the checkpoint says it is.
    vocabulary: None: the tokenizer that comes with the checkpoint.
    batch_size: inputs per batch.
    tfds_data_dir: TFDS data directory; None: $TFDS_DATA_DIR, else the sample.
    layout: where the parameters lie, see `evaluated.load_params`.

  Returns:
    The path of the table, `response_ranking.md`; `response_ranking.json` has
    the same and `responses.jsonl` all scores of every instruction.

  Raises:
    UserError: what `response_ranking.pairs` and `rank.rank` raise; a
      checkpoint, a mixture or a file that cannot be read.
  """
  checks.numbers(batch_size=batch_size)
  checks.lengths(task_feature_lengths)
  if eval_mixture_or_task_name is None:
    raise UserError(
      "EVAL_MIXTURE_OR_TASK_NAME is None: say whose instructions and responses"
      " are ranked, such as 'sft_held_out'."
    )
  opened, model, vocabulary = evaluated.open_model(
    initial_checkpoint_path, model, vocabulary
  )
  wrapper = template.Wrapper(eos=model.kind == "encoder_decoder")
  task_collection = collection.register(
    task_collection, vocabulary, wrapper=wrapper, kind=model.kind
  )
  data = directory_lib.choose(tfds_data_dir, task_collection)
  held_out = mixtures.resolve(eval_mixture_or_task_name, "error", split=split)
  mixtures.check_vocabulary(held_out, vocabulary)
  rows = EvaluationSet.prepare(
    mixtures.catalogue_tasks(held_out),
    vocabulary=vocabulary,
    lengths=task_feature_lengths,
    batch_size=batch_size,
    splits=(split,),
    wrapper=wrapper,
    form_of=mixtures.forms_of(held_out),
    kind=model.kind,
  )
  examples = response_ranking.pairs(
    rows.examples[split],
    others=other_responses,
    instructions=eval_examples,
    seed=seed,
  )
  record = record_lib.make(
    {
      "source": "sample" if data.embedded else str(data.path.resolve()),
      "vocabulary": vocabulary_lib.fingerprint(vocabulary),
      "checkpoint": evaluated.address(initial_checkpoint_path, opened),
      "mixture": eval_mixture_or_task_name,
      "instructions": len(examples),
    }
  )
  folder = evaluated.claim_folder(output_dir, record)
  display = progress_lib.Display(quiet=not processes.is_first())
  display.say(f"checkpoint: {opened.path} ({opened.format}), {model.kind}")
  display.say(
    f"ranks:      {eval_mixture_or_task_name}, {len(examples):,} instructions,"
    f" {other_responses} other responses each"
  )
  params, partition = evaluated.load_params(opened, model, layout)
  with evaluated.computing(partition):
    ranked = rank.rank(
      model, params, examples, batch_size=batch_size, lengths=rows.lengths
    )
  scores = response_ranking.scores(ranked)
  path = write(folder, eval_mixture_or_task_name, scores, ranked)
  display.table("response ranking", _HEADER, list(map(_cells, scores)))
  display.say(f"table: {path}")
  return path


_HEADER = (
  "score", "share of pairs", "95 % interval", "first of all", "pairs",
  "instructions", "ties",
)  # fmt: skip


def write(
  folder: pathlib.Path,
  name: str,
  scores: Sequence[response_ranking.RankingScore],
  ranked: Sequence[rank.Scored],
) -> pathlib.Path:
  """Writes the table, as Markdown and JSON, and every score.

  Raises:
    UserError: the folder cannot be written.
  """
  table = files_lib.markdown_table(_HEADER, list(map(_cells, scores)))
  head = (
    f"{name}: pairs in which an instruction's own response has a higher score"
    " than another instruction's; sum: log p(response | instruction), mean:"
    " that by its tokens."
  )
  lines = [
    json.dumps(response_ranking.row(r), ensure_ascii=False) for r in ranked
  ]
  files_lib.write(
    folder,
    {
      "response_ranking.json": json.dumps(
        list(map(dataclasses.asdict, scores))
      ),
      "response_ranking.md": "\n".join(
        ["# Response ranking", "", head, "", *table, ""]
      ),
      "responses.jsonl": "\n".join([*lines, ""]),
    },
    "table",
  )
  return folder / "response_ranking.md"


def _cells(s: response_ranking.RankingScore) -> tuple:
  return (
    s.score,
    page_text.score(s.share),
    " to ".join(map(page_text.score, s.interval)),
    page_text.score(s.first),
    f"{s.pairs:,}",
    f"{s.instructions:,}",
    f"{s.ties:,}",
  )
