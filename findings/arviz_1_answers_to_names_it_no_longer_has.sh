#!/usr/bin/env bash
# Guess, written down before running: ArviZ 1 replaced InferenceData by xarray's DataTree, so `hasattr(arviz,
# "InferenceData")` tells ArviZ 0 from ArviZ 1, as looking for a feature is the usual way to support two majors.
# Seen: it is True in ArviZ 1.3.0 as well. A module-level __getattr__ answers to the old name with DataTree and a
# warning, so that code written for ArviZ 0 is taken, and its call of from_dict fails. The version has to be compared.
set -euo pipefail

python=$(command -v python3.14 || command -v python3.13 || command -v python3.12 || command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { echo "ArviZ 1 needs Python 3.12 or later"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet arviz==1.3.0 2>/dev/null

"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import arviz
import numpy as np

print("ArviZ", arviz.__version__)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    found = hasattr(arviz, "InferenceData")
print(f"hasattr(arviz, 'InferenceData') is {found}, with the warnings: {[type(each.message).__name__ for each in seen]}")
if not found:
    sys.exit("changed: the old name is gone")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    print("arviz.InferenceData is", f"{arviz.InferenceData.__module__}.{arviz.InferenceData.__qualname__}")
try:
    arviz.from_dict(posterior={"z": np.zeros((1, 5))})  # as ArviZ 0 has it
except TypeError as error:
    print("and from_dict as ArviZ 0 has it raises TypeError:", error)
else:
    sys.exit("changed: from_dict takes groups by keyword again")
tree = arviz.from_dict({"posterior": {"z": np.zeros((1, 5))}})
print("as ArviZ 1 has it, it returns a", type(tree).__name__)
PYTHON
