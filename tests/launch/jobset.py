"""The fields of a JobSet (v1alpha2) that launch/gke.yaml uses, as a schema.

Written from the reference of JobSet and of Kubernetes' Job and Pod; unknown
fields are refused, as the API server does in strict mode.
"""

import jsonschema

Invalid = jsonschema.ValidationError
LABEL = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
COUNT = {"type": "integer", "minimum": 0}


def _fields(required: str = "", **properties):
  return {
    "type": "object",
    "properties": properties,
    "required": required.split(),
    "additionalProperties": False,
  }


def _list(items):
  return {"type": "array", "items": items, "minItems": 1}


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
CONTAINER = _fields(
  "name image",
  name=LABEL,
  image={"type": "string"},
  args=_list({"type": "string"}),
  env=_list(
    _fields("name value", name={"type": "string"}, value={"type": "string"})
  ),
  ports=_list(
    _fields(
      "containerPort",
      containerPort={"type": "integer", "minimum": 1, "maximum": 65535},
    )
  ),
  volumeMounts={
    "type": "array",
    "items": _fields(
      "name mountPath",
      name=LABEL,
      mountPath={"type": "string", "pattern": "^/"},
    ),
  },
  resources=_fields(
    "limits",
    limits={"type": "object", "additionalProperties": COUNT},
  ),
)
VOLUME = _fields(
  "name csi",
  name=LABEL,
  csi=_fields("driver", driver={"type": "string"}, volumeAttributes=TEXTS),
)
POD = _fields(
  "containers restartPolicy",
  restartPolicy={"enum": ["Never"]},
  terminationGracePeriodSeconds=COUNT,
  serviceAccountName=LABEL,
  nodeSelector=TEXTS,
  volumes={"type": "array", "items": VOLUME},
  containers=_list(CONTAINER),
)
JOB = _fields(
  "template",
  completionMode={"enum": ["Indexed", "NonIndexed"]},
  parallelism=COUNT,
  completions=COUNT,
  backoffLimit=COUNT,
  podFailurePolicy=_fields(
    "rules",
    rules=_list(
      _fields(
        "action",
        action={"enum": ["FailJob", "FailIndex", "Ignore", "Count"]},
        onExitCodes=_fields(
          "operator values",
          containerName=LABEL,
          operator={"enum": ["In", "NotIn"]},
          values=_list(COUNT),
        ),
      )
    ),
  ),
  template=_fields("spec", metadata=_fields(annotations=TEXTS), spec=POD),
)
SCHEMA = _fields(
  "apiVersion kind metadata spec",
  apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
  kind={"const": "JobSet"},
  metadata=_fields("name", name=LABEL, annotations=TEXTS),
  spec=_fields(
    "replicatedJobs",
    failurePolicy=_fields(
      maxRestarts=COUNT,
      restartStrategy={"enum": ["Recreate", "BlockingRecreate"]},
      rules=_list(
        _fields(
          "name action",
          name={
            "type": "string",
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
          },
          action={
            "enum": [
              "FailJobSet",
              "RestartJobSet",
              "RestartJobSetAndIgnoreMaxRestarts",
            ]
          },
          onJobFailureReasons=_list(
            {
              "enum": [
                "BackoffLimitExceeded",
                "DeadlineExceeded",
                "FailedIndexes",
                "MaxFailedIndexesExceeded",
                "PodFailurePolicy",
              ]
            }
          ),
        )
      ),
    ),
    replicatedJobs=_list(
      _fields(
        "name template",
        name=LABEL,
        replicas=COUNT,
        template=_fields("spec", spec=JOB),
      )
    ),
  ),
)


def check(manifest: dict) -> None:
  """Raises `Invalid`, naming the field, unless it is such a JobSet."""
  jsonschema.Draft202012Validator.check_schema(SCHEMA)
  jsonschema.validate(manifest, SCHEMA, cls=jsonschema.Draft202012Validator)
