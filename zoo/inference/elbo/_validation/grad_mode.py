"""Sites that are sampled while gradients are off: what of their gradient can be had, and what is lost."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from zoo.gradients.graphs._distributions import nested_distributions
from zoo.inference.elbo._messages import site_of
from zoo.inference.elbo._no_grad_views import ends_nowhere, swallows_gradients
from zoo.inference.elbo._sites import Run, Site, sites_of
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import record
from zoo.inference.elbo._validation.comparison import Both
from zoo.inference.elbo._validation.vectorization import without_trace
from zoo.inference.elbo.nonreparameterized import NonReparameterized


class GradModeIgnored(TorchFunctionMode):
    """Gradients stay on while it is entered, whatever ``torch.no_grad`` or ``set_grad_enabled`` say."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a torch function, unless it turns gradients on or off."""
        return None if func is torch._C._set_grad_enabled else func(*args, **(kwargs or {}))


def check_grad_mode(run: Run, both: Both, drawn: Subsamples, at_once: bool) -> None:
    """Raise an error if a site's distribution lost its gradient, as it was made where gradients were off.

    A distribution that is only sampled there is no harm: its density is computed with gradients all the same. What was
    computed there and is sampled elsewhere is taken for a constant, as anywhere in torch, but for views: they say that
    they have a gradient.

    Args:
        run: of the programs.
        both: programs.
        drawn: subsamples that the run saw.
        at_once: the run holds all particles.

    Raises:
        ValueError: there is such a site.
    """
    for where, site in sites_of([run]):
        swallowed = any(map(swallows_gradients, tensors_of(site.distribution).values()))
        if swallowed or site.uses_cut_view or ends_nowhere(site.density.log_prob):
            raise ValueError(made_without_gradients(where, site))
    off = [(where, site) for where, site in sites_of([run]) if not site.grad_enabled]
    if not off:
        return
    values = {} if at_once else {name: site.value for name, site in run.guide.items()}
    with without_trace(both):
        again = record(*both, drawn, values, around=GradModeIgnored)
    for where, site in off:
        other = (again.guide if where == "guide" else again.model).get(site.name)
        inference = any(part.is_inference() for part in tensors_of(site.distribution).values())
        if inference or (other is not None and has_fewer_gradients(site.distribution, other.distribution)):
            raise ValueError(made_without_gradients(where, site))


def made_without_gradients(where: str, site: Site) -> str:
    """Say that a distribution has no gradient, and what to do."""
    return (
        f"the distribution of {site_of(site.name, site.distribution)} in the {where} is made where gradients are off "
        "(torch.no_grad or inference_mode), and its parameters would learn nothing; make it before, as sampling needs "
        "no torch.no_grad(), or detach() what is to be constant"
    )


def has_fewer_gradients(distribution: Distribution, other: Distribution) -> bool:
    """Return whether a parameter has no gradient, but has one in another run."""
    ours, theirs = tensors_of(distribution), tensors_of(other)
    return any(x.requires_grad and name in ours and not ours[name].requires_grad for name, x in theirs.items())


def tensors_of(distribution: Distribution) -> dict[tuple[int, str], Tensor]:
    """Find the tensors that a distribution keeps, by the place and the name of the attribute."""
    bare = distribution.base_dist if isinstance(distribution, NonReparameterized) else distribution
    held = ((i, part) for i, part in enumerate(nested_distributions(bare)))
    return {(i, name): x for i, part in held for name, x in vars(part).items() if isinstance(x, Tensor)}
