r"""Trains on GPUs of a SLURM cluster, one process for every GPU.

  python launch/slurm.py submit --name=flan-nli --nodes=2 --gpus-per-node=8 \
      --partition=gpu --time=1-00:00:00 -- \
      --gin_file=gin/flan_holdout_nli.gin --gin_file=gin/models/t5_1_1_xl.gin \
      --gin.MODEL_DIR=/shared/runs/nli --gin.TFDS_DATA_DIR=/shared/tfds

  submit  puts the job (launch/slurm.sh) into the queue; at its time limit it
          saves and is put there again, as after a node that failed
  status  says how it stands
  logs    follows its newest log
  cancel  ends the job, asking first; what was saved stays

Run it in a checkout on a file system that all nodes see, after

  python3.11 -m venv .venv
  .venv/bin/python -m pip install -c constraints.txt -e '.[gpu]'
"""

import sys

import commands
from commands import Failed


def words(arguments, flags: list[str]) -> list[str]:
  """The sbatch command."""
  given = arguments
  optional = {
    "partition": given.partition,
    "account": given.account,
    "qos": given.qos,
    "constraint": given.constraint,
  }
  return [
    "sbatch",
    f"--job-name={given.name}",
    f"--nodes={given.nodes}",
    f"--gpus-per-node={given.gpus_per_node}",
    f"--ntasks-per-node={given.gpus_per_node}",
    f"--cpus-per-task={given.cpus_per_task}",
    f"--time={given.time}",
    *(f"--{key}={value}" for key, value in optional.items() if value),
    "--requeue",
    # To the batch script alone, so long before the end.
    f"--signal=B:USR1@{given.save_seconds}",
    "--open-mode=append",
    f"--output={given.name}-%j.log",
    "launch/slurm.sh",
    *flags,
  ]


def parser():
  made = commands.parser(__doc__)
  made.add_argument("action", choices=("submit", "status", "logs", "cancel"))
  made.add_argument("--name", type=commands.name, required=True)
  made.add_argument("--nodes", type=commands.count, default=1)
  made.add_argument("--gpus-per-node", type=commands.count, default=8)
  made.add_argument("--cpus-per-task", type=commands.count, default=8)
  made.add_argument("--time", type=commands.duration, default="1-00:00:00")
  for option in ("partition", "account", "qos", "constraint"):
    made.add_argument(f"--{option}", type=commands.word)
  made.add_argument(
    "--save-seconds",
    type=commands.count,
    default=120,
    help="before the time limit in which the job saves",
  )
  made.add_argument("--yes", action="store_true", help="cancel without asking")
  return made


def act(arguments, flags, run):
  action, name = arguments.action, arguments.name
  if action == "submit":
    commands.check_job(
      flags, processes=arguments.nodes * arguments.gpus_per_node
    )
    run.run(*words(arguments, flags))
    run.say(f"{name} is in the queue: `status`, `logs`, `cancel`.")
    return
  if flags:
    raise Failed(f"{action} takes no flags of launch/run.py after `--`.")
  if action == "status":
    run.run("squeue", "--me", f"--name={name}")
  elif action == "logs":
    found = sorted(
      commands.ROOT.glob(f"{name}-*.log"), key=lambda path: path.stat().st_mtime
    )
    if not found:
      raise Failed(f"there is no log {name}-*.log here: it has not started.")
    run.run("tail", "-n", "50", "-F", found[-1].name)
  else:
    if not run.dry_run:
      commands.agreed(f"Cancel the job {name}?", name, arguments.yes)
    run.run("scancel", "--me", f"--name={name}")


if __name__ == "__main__":
  sys.exit(commands.main(sys.argv[1:], parser(), act))
