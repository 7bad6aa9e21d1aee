#!/usr/bin/env bash
# Installs dl3flow from its source folder: the working directory, or $DL3FLOW_SOURCE where the workflow is a module.
set -euo pipefail
python -m pip install --no-deps --no-build-isolation "${DL3FLOW_SOURCE:-.}"
