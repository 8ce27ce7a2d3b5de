r"""Trains on a TPU slice of a GKE cluster, as a JobSet (launch/gke.yaml).

  python launch/gke.py submit --name=flan-nli --project=my-project-123 \
      --location=us-central2 --cluster=my-cluster --type=v4 --topology=4x4x8 \
      --image=us-docker.pkg.dev/my-project-123/flan/flan_jax:v1 \
      --bucket=my-bucket --service-account=flan -- \
      --gin_file=gin/flan_holdout_nli.gin --gin_file=gin/hardware/v4_256.gin \
      --gin.MODEL_DIR=/bucket/nli --gin.TFDS_DATA_DIR=gs://my-bucket/tfds

  submit    sends the job; it is started again when a host is taken away
  manifest  prints what submit would send
  status    says how it stands
  logs      follows the log of one host (--worker)
  delete    deletes the job, asking first; its hosts get SIGTERM and save

The cluster has a node pool of that topology, JobSet, and for --bucket the Cloud
Storage FUSE driver and a service account that may use the bucket; the image is
made by launch/docker.py. Deleting the job leaves the node pool as it is.
"""

import json
import math
import string
import sys

import commands
from commands import Failed

# As GKE's node label has them, and the shapes that are one machine.
ACCELERATORS = {
  "v4": "tpu-v4-podslice",
  "v5e": "tpu-v5-lite-podslice",
  "v5p": "tpu-v5p-slice",
  "v6e": "tpu-v6e-slice",
}
OWNER = ("uid=1000", "gid=1000")
ONE_MACHINE = {"1x1": 1, "2x4": 8}


def machines(topology: str) -> tuple[int, int]:
  """Machines of a slice, and chips of each.

  >>> machines("4x4x8"), machines("2x2"), machines("1x1")
  ((32, 4), (1, 4), (1, 1))
  """
  if topology in ONE_MACHINE:
    return 1, ONE_MACHINE[topology]
  chips = math.prod(map(int, topology.split("x")))
  if chips % commands.CHIPS_A_HOST:
    raise Failed(
      f"--topology={topology} has {chips} chips; a machine has"
      f" {commands.CHIPS_A_HOST}, so give a multiple."
    )
  return chips // commands.CHIPS_A_HOST, commands.CHIPS_A_HOST


def manifest(arguments, flags: list[str]) -> str:
  """launch/gke.yaml with everything filled in.

  Raises:
    Failed: what is needed for it is not given, or does not fit.
  """
  for needed in ("type", "topology", "image"):
    if getattr(arguments, needed) is None:
      raise Failed(f"{arguments.action} needs --{needed}.")
  flat = arguments.type in ("v5e", "v6e")
  if arguments.topology.count("x") != (1 if flat else 2):
    shape = "4x4" if flat else "2x2x2"
    raise Failed(
      f"--topology={arguments.topology}: of a {arguments.type} it looks like"
      f" {shape}."
    )
  hosts, chips = machines(arguments.topology)
  commands.check_job(
    flags, processes=hosts, machine=(arguments.type, hosts * chips)
  )
  text = (commands.ROOT / "launch" / "gke.yaml").read_text()
  return string.Template(text).substitute(
    name=arguments.name,
    restarts=arguments.restarts,
    hosts=hosts,
    chips=chips,
    accelerator=ACCELERATORS[arguments.type],
    topology=arguments.topology,
    image=arguments.image,
    service_account=arguments.service_account,
    distributed=int(hosts > 1),
    mounted=json.dumps(str(arguments.bucket is not None).lower()),
    mounts=json.dumps(
      [{"name": "bucket", "mountPath": commands.BUCKET}]
      if arguments.bucket
      else []
    ),
    volumes=json.dumps([_volume(arguments.bucket)] if arguments.bucket else []),
    # JSON is YAML.
    # Kubernetes would expand $(NAME).
    flags=json.dumps([flag.replace("$(", "$$(") for flag in flags]),
  )


def _volume(bucket: str) -> dict:
  return {
    "name": "bucket",
    "csi": {
      "driver": "gcsfuse.csi.storage.gke.io",
      "volumeAttributes": {
        "bucketName": bucket,
        # It belongs to the user of launch/Dockerfile.
        "mountOptions": ",".join((*commands.MOUNT_OPTIONS, *OWNER)),
      },
    },
  }


def parser():
  made = commands.parser(__doc__)
  actions = ("submit", "manifest", "status", "logs", "delete")
  made.add_argument("action", choices=actions)
  made.add_argument("--name", type=commands.name, required=True)
  made.add_argument("--project", type=commands.project, required=True)
  made.add_argument("--location", type=commands.location, required=True)
  made.add_argument("--cluster", type=commands.name, required=True)
  made.add_argument("--type", choices=ACCELERATORS)
  made.add_argument("--topology", type=commands.topology)
  made.add_argument("--image", type=commands.image)
  made.add_argument("--bucket", type=commands.bucket, help="mounted at /bucket")
  made.add_argument("--service-account", type=commands.name, default="default")
  made.add_argument("--restarts", type=commands.count, default=20)
  made.add_argument("--worker", type=commands.worker, default="0")
  made.add_argument("--yes", action="store_true", help="delete without asking")
  return made


def act(arguments, flags, run):
  action, name = arguments.action, arguments.name
  if action in ("submit", "manifest"):
    text = manifest(arguments, flags)
    if action == "manifest":
      print(text, end="")
      return
  elif flags:
    raise Failed(f"{action} takes no flags of launch/run.py after `--`.")
  if action == "delete" and not run.dry_run:
    commands.agreed(f"Delete the JobSet {name}?", name, arguments.yes)
  where = (arguments.project, arguments.location, arguments.cluster)
  run.run(
    *("gcloud", "container", "clusters", "get-credentials", where[2]),
    *(f"--project={where[0]}", f"--location={where[1]}"),
  )
  # Named in every command, so that no other cluster is meant.
  kubectl = ("kubectl", "--context=gke_" + "_".join(where))
  if action == "submit":
    try:
      run.run(*kubectl, "create", "--filename=-", stdin=text)
    except Failed as error:
      raise Failed(
        f"{error} `status` says whether {name} is there; a JobSet of that name"
        " that ran before is deleted first."
      ) from None
    run.say(f"{name} runs on until it ends: `status`, `logs`, `delete`.")
  elif action == "status":
    run.run(*kubectl, "get", f"jobset/{name}", "--output=wide")
    selector = f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
    run.run(*kubectl, "get", "pods", selector, "--output=wide")
  elif action == "logs":
    run.run(
      *(*kubectl, "logs", "--follow", "--tail=50"),
      f"--selector=jobset.sigs.k8s.io/jobset-name={name},"
      f"batch.kubernetes.io/job-completion-index={arguments.worker}",
    )
  else:
    run.run(*kubectl, "delete", f"jobset/{name}")


if __name__ == "__main__":
  sys.exit(commands.main(sys.argv[1:], parser(), act))
