#!/usr/bin/env bash
# Guess, written down before running: torch's LKJCholesky samples by the onion method of Lewandowski, Kurowicka & Joe
# (2009), in which the squared length of the part of row k (from 0) before the diagonal follows Beta(k/2, ·); its code
# passes k - 1/2 in the place of k/2. These agree for k = 1 alone, so that matrices of three rows or more are drawn from
# another distribution than log_prob tells of, and the mean score is not 0.
# Seen: so it is. With three rows and concentration 1, where all correlation matrices are equally probable and each
# correlation has variance 1/4, the first has it, but the two of the last row have .30. log_prob is the one that is
# right: its integral over all matrices is 1, and under it each variance is .25.
# A request for a pathwise gradient (pytorch/pytorch issue 69281, open since 2021) met the disagreement of gradients
# and left its cause open.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.4 2>/dev/null

"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import torch
from torch.distributions import LKJCholesky

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
print("torch", torch.__version__)

draws = 400_000
factor = LKJCholesky(3, 1.0).sample((draws,))
correlations = factor @ factor.mT
drawn = {(i, j): correlations[:, i, j].square().mean().item() for i, j in ((1, 0), (2, 0), (2, 1))}
print(f"variance of the correlations in {draws:,} draws:", {f"r{i + 1}{j + 1}": round(v, 4) for (i, j), v in drawn.items()})

# The exact ones under log_prob, by the midpoint rule: the factor's free elements are a in (-1, 1) of the second row and
# (r cos t, r sin t) of the third, whose area element is r dr dt.
points = 400
mid = (torch.arange(points) + 0.5) / points
a, r, t = torch.meshgrid(2 * mid - 1, mid, 2 * math.pi * mid[::10], indexing="ij")
value = torch.zeros(*a.shape, 3, 3)
value[..., 0, 0] = 1
value[..., 1, 0], value[..., 1, 1] = a, (1 - a**2).sqrt()
value[..., 2, 0], value[..., 2, 1], value[..., 2, 2] = r * t.cos(), r * t.sin(), (1 - r**2).sqrt()
weight = LKJCholesky(3, 1.0, validate_args=False).log_prob(value).exp() * r * (2 / points) * (1 / points) * (2 * math.pi / 40)
total = weight.sum().item()
told = {(i, j): (weight * (value @ value.mT)[..., i, j] ** 2).sum().item() for i, j in drawn}
print(f"the density's integral over all matrices: {total:.4f}, and the variances under it:", {f"r{i + 1}{j + 1}": round(v, 4) for (i, j), v in told.items()})

concentration = torch.full((draws,), 1.5, requires_grad=True)
law = LKJCholesky(3, concentration)
(score,) = torch.autograd.grad(law.log_prob(law.sample()).sum(), concentration)
error = score.std().item() / draws**0.5
print(f"mean score of the concentration at 1.5: {score.mean().item():.3f} +- {error:.3f}, where every density has 0")

expected = abs(total - 1) < 0.002 and all(abs(v - 0.25) < 0.002 for v in told.values())
expected = expected and abs(drawn[1, 0] - 0.25) < 0.005 and all(abs(drawn[2, j] - 0.3) < 0.005 for j in (0, 1))
expected = expected and score.mean().item() < -0.2
if not expected:
    sys.exit("changed: sampler and density no longer disagree in this way")
PYTHON
