r"""Builds the image of launch/Dockerfile, and runs it.

python launch/docker.py build --image=flan_jax:v1
python launch/docker.py run --image=flan_jax:v1 --volume=$PWD/runs -- \
      --gin_file=gin/flan_holdout_nli.gin --gin.MODEL_DIR=runs/nli

build  makes the image from this checkout (--extra=tpu or gpu)
push   sends it to the registry that its name begins with
run    runs launch/run.py in it; Ctrl-C saves and stops
"""

import pathlib
import sys

import commands
from commands import Failed


def parser():
  made = commands.parser(__doc__)
  made.add_argument("action", choices=("build", "push", "run"))
  made.add_argument("--image", type=commands.image, required=True)
  made.add_argument(
    "--extra", choices=("tpu", "gpu"), help="none: for CPUs alone"
  )
  made.add_argument(
    "--volume",
    type=pathlib.Path,
    action="append",
    default=[],
    help="a folder that the job sees under its own name, in /flan_jax",
  )
  return made


def act(arguments, flags, run):
  action, image = arguments.action, arguments.image
  if action == "build":
    _refuse(flags, action)
    run.run(
      *("docker", "build", "--file=launch/Dockerfile", f"--tag={image}"),
      *([f"--build-arg=EXTRA={arguments.extra}"] if arguments.extra else []),
      ".",
    )
  elif action == "push":
    _refuse(flags, action)
    if "/" not in image:
      raise Failed(
        f"--image={image} names no registry; one that does looks like"
        " us-docker.pkg.dev/my-project-123/flan/flan_jax:v1."
      )
    run.run("docker", "push", image)
  else:
    commands.check_job(flags, processes=1)
    volumes = []
    for folder in arguments.volume:
      if not folder.is_dir():
        raise Failed(f"--volume={folder} is not a folder.")
      here = folder.resolve()
      volumes.append(f"--volume={here}:/flan_jax/{here.name}")
    gpus = ["--gpus=all"] if arguments.extra == "gpu" else []
    user = _user()
    run.run(
      *("docker", "run", "--rm", "--init", "--stop-timeout=60", *user),
      *(*gpus, *volumes, image, *flags),
    )


def _user() -> list[str]:
  """Files in a volume belong to who runs this."""
  import os

  return [f"--user={os.getuid()}:{os.getgid()}", "--env=HOME=/tmp"]


def _refuse(flags, action):
  if flags:
    raise Failed(f"{action} takes no flags of launch/run.py after `--`.")


if __name__ == "__main__":
  sys.exit(commands.main(sys.argv[1:], parser(), act))
