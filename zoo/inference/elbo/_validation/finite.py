import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import site_of, what_is_wrong, wrong_parameters
from zoo.inference.elbo._sites import Run, sites_of


def check_finite(bound: float, loss: float, runs: Sequence[Run], step: int) -> None:
    """Raise an error if the bound is not finite, or the loss that has its gradient.

    Raises:
        FloatingPointError: it is not. The sentence names the step and the first site that is to blame.
    """
    if math.isfinite(bound) and math.isfinite(loss):
        return
    what = f"the ELBO is {bound}" if not math.isfinite(bound) else f"the loss that has the ELBO's gradient is {loss}"
    for where, site in sites_of(runs):
        if bool(torch.isfinite(site.density.log_prob).all()):
            continue
        reason = what_is_wrong(site.name, site.distribution, site.value, site.observed)
        reason = reason or wrong_parameters(site.distribution)
        raise FloatingPointError(
            f"{what} at step {step}: the log-probability of {site_of(site.name, site.distribution)} in the "
            f"{where} is not finite" + (f"; {reason}" if reason else "")
        )
    rest = "the sum of its terms is too large" if not math.isfinite(bound) else "a baseline is not finite"
    raise FloatingPointError(f"{what} at step {step}: {rest}")


def check_gradients(parameters: Mapping[str, Tensor], again: Callable[[], Sequence[Run]], step: int) -> None:
    """Raise an error if the gradient of a parameter is not finite.

    Args:
        parameters: that have theirs.
        again: runs the program again, to find the site that is to blame.
        step: for the message.

    Raises:
        FloatingPointError: one is not, though the ELBO is. The sentence names the step and the site.
    """
    # A sum is an order of magnitude faster than a look at each element.
    suspects = {name: x for name, x in parameters.items() if x.grad is not None and not math.isfinite(x.grad.sum())}
    spoilt = {name: x for name, x in suspects.items() if not bool(x.grad.isfinite().all())}  # type: ignore[union-attr]
    if spoilt:
        raise FloatingPointError(
            f"the gradient of {quote_names(spoilt)} is not finite at step {step}, though the ELBO is"
            + blame(list(spoilt.values()), again())
        )


def blame(parameters: Sequence[Tensor], runs: Sequence[Run]) -> str:
    """Say which site's log-probability has no finite gradient; nothing if each has one."""
    for where, site in sites_of(runs):
        log_prob = site.density.log_prob
        if not log_prob.requires_grad:
            continue
        gradients = torch.autograd.grad(log_prob.sum(), parameters, retain_graph=True, allow_unused=True)
        if all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None):
            continue
        reason = what_is_wrong(site.name, site.distribution, site.value, site.observed)
        reason = reason or "look for a root, a logarithm or a division at 0, which a mask or torch.where may hide"
        return f": that of {site_of(site.name, site.distribution)} in the {where} is not; {reason}"
    return ""
