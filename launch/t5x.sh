#!/usr/bin/env bash
# Installs T5X into .venv from its public repository, for gin/t5x/*.gin.
#   bash launch/t5x.sh
# T5X is on no package registry. It, AirIO and JEstimator are taken at the
# commits that we tried, without their own lists of dependencies: these ask for
# a nightly TFDS, which overwrites the files of tensorflow-datasets, and for an
# older grain. What they import besides is the extra t5x in setup.py.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv_install -e '.[t5x]'
.venv/bin/python -m pip install --no-deps --disable-pip-version-check \
  "t5x @ git+https://github.com/google-research/t5x@cc342d419ec3e3e9c4bf1df33c82330cafdc1e16" \
  "airio @ git+https://github.com/google/airio@69897df7d9a427b947a9f7bb4164c7782b43e601" \
  "jestimator @ git+https://github.com/google-research/jestimator@326824a477feef6d92e6f44175000907a72899ca"
.venv/bin/python -c 'import t5x.train'
echo "T5X is installed: .venv/bin/python launch/run.py --gin_file=gin/t5x/flan_holdout_nli.gin"
