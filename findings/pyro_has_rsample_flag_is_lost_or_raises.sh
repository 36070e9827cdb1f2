#!/usr/bin/env bash
# Guess, written down before running: Pyro's has_rsample_(False), the documented way to ask for the score function where
# a distribution could be reparameterised, lasts as long as the distribution does, through expand and inside plates.
# Seen: expand silently turns it back on, so that a guide whose values meet a step gets the pathwise gradient again,
# which is biased. A plate copies the flag, but only where it can be set: with to_event or mask inside a plate, and for
# Gumbel and Weibull anywhere, an AttributeError about a missing setter comes out of it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.4 pyro-ppl==1.9.2

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import pyro
import pyro.distributions as dist
import torch

print("Pyro", pyro.__version__)
flagged = dist.Normal(0.0, 1.0).has_rsample_(False)
expanded = flagged.expand([3])
print(f"has_rsample of a flagged Normal: {flagged.has_rsample}; after expand([3]): {expanded.has_rsample}")
if flagged.has_rsample or not expanded.has_rsample:
    sys.exit("changed: expand keeps the flag")


def in_a_plate(make):
    with pyro.plate("data", 3):
        pyro.sample("z", make())


cases = {
    "Normal in a plate": (lambda: dist.Normal(0.0, 1.0).has_rsample_(False), False),
    "Normal.to_event(1) in a plate": (lambda: dist.Normal(torch.zeros(2), 1.0).has_rsample_(False).to_event(1), True),
    "Normal.mask(True) in a plate": (lambda: dist.Normal(0.0, 1.0).has_rsample_(False).mask(True), True),
    "Gumbel": (lambda: dist.Gumbel(0.0, 1.0).has_rsample_(False), True),
    "Weibull": (lambda: dist.Weibull(1.0, 1.0).has_rsample_(False), True),
}
for name, (make, raises) in cases.items():
    try:
        in_a_plate(make)
        outcome = "is taken"
    except AttributeError as error:
        outcome = f"raises AttributeError: {error}"
    print(f"{name} {outcome}")
    if raises != outcome.startswith("raises"):
        sys.exit("changed")
PYTHON
