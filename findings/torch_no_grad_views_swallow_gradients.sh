#!/usr/bin/env bash
# Guess, written down before running: a distribution that is made under torch.no_grad() has constants for parameters,
# and says so with requires_grad=False; backward then raises "does not require grad".
# Seen: with a batch to be expanded its parameter says requires_grad=True, and is_leaf=True. backward() runs, raises
# nothing and leaves no gradient: what flows back ends at the view. Without an expansion the same code works, as the
# parameter is kept as it is. So whether a policy or a guide learns depends on whether a parameter was broadcast.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.4

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.distributions import Bernoulli, Normal

print("torch", torch.__version__)


def gradient(make):
    theta = torch.tensor(0.5, requires_grad=True)
    with torch.no_grad():
        law = make(theta)
    parameter = law.mean if isinstance(law, Normal) else law.logits
    law.log_prob(torch.ones(3)).sum().backward()
    return theta.grad, parameter.requires_grad, parameter.is_leaf


cases = {
    "Bernoulli(logits=theta)": lambda theta: Bernoulli(logits=theta),
    "Bernoulli(logits=theta).expand([3])": lambda theta: Bernoulli(logits=theta).expand([3]),
    "Normal(theta, torch.ones(3))": lambda theta: Normal(theta, torch.ones(3)),
}
found = {}
for name, make in cases.items():
    found[name], requires_grad, leaf = gradient(make)
    print(f"under no_grad {name}: requires_grad={requires_grad}, is_leaf={leaf}, theta.grad={found[name]}")
    if not requires_grad:
        sys.exit("changed: the parameter no longer claims to have a gradient")
kept, *swallowed = found.values()
if kept is None or any(each is not None for each in swallowed):
    sys.exit("changed: gradients end elsewhere")
PYTHON
