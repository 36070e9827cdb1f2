import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import NonFiniteELBOError, describe_site, diagnose_parameters, diagnose_value
from zoo.inference.elbo._sites import Run, all_sites


def check_finite(bound: float, loss: float, runs: Sequence[Run], step: int) -> None:
    """Raise ``NonFiniteELBOError``, naming the site, if the bound or its surrogate loss is not finite."""
    if math.isfinite(bound) and math.isfinite(loss):
        return
    is_bound = not math.isfinite(bound)
    problem = f"the ELBO is {bound}" if is_bound else f"the loss that has the ELBO's gradient is {loss}"
    for program, site in all_sites(runs):
        if bool(site.density.log_prob.isfinite().all()):
            continue
        cause = diagnose_value(site.name, site.distribution, site.value, site.observed)
        cause = cause or diagnose_parameters(site.distribution)
        where = f"the log-probability of {describe_site(site.name, site.distribution)} in the {program} is not finite"
        raise NonFiniteELBOError(problem, step, f"{where}; {cause}" if cause else where)
    raise NonFiniteELBOError(
        problem, step, "the sum of its terms is too large" if is_bound else "a baseline is not finite"
    )


def check_gradients(parameters: Mapping[str, Tensor], retrace: Callable[[], Sequence[Run]], step: int) -> None:
    """Raise ``NonFiniteELBOError``, naming the site found by another run, if a gradient is not finite."""
    # A sum is an order of magnitude faster than a check of each element.
    suspects = {name: x for name, x in parameters.items() if x.grad is not None and not math.isfinite(x.grad.sum())}
    nonfinite = {name: x for name, x in suspects.items() if not bool(x.grad.isfinite().all())}  # type: ignore[union-attr]
    if nonfinite:
        reason = find_nonfinite_site(list(nonfinite.values()), retrace())
        problem = f"the gradient of {quote_names(nonfinite)} is not finite"
        raise NonFiniteELBOError(problem, step, reason, contrast=", though the ELBO is")


def find_nonfinite_site(parameters: Sequence[Tensor], runs: Sequence[Run]) -> str:
    """Return which site's log-probability has a gradient that is not finite; empty if there is none."""
    for program, site in all_sites(runs):
        log_prob = site.density.log_prob
        if not log_prob.requires_grad:
            continue
        gradients = torch.autograd.grad(log_prob.sum(), parameters, retain_graph=True, allow_unused=True)
        if all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None):
            continue
        cause = diagnose_value(site.name, site.distribution, site.value, site.observed)
        cause = cause or "check for a root, logarithm or division at 0, possibly hidden by a mask or torch.where"
        return f"that of {describe_site(site.name, site.distribution)} in the {program} is not; {cause}"
    return ""
