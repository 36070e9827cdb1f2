"""Checks of distributions created while gradients are disabled."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from zoo.gradients.graphs._distributions import nested_distributions
from zoo.gradients.graphs._provenance.shadow_memory import is_no_grad_view
from zoo.gradients.graphs._provenance.torch_internals import set_grad_enabled
from zoo.inference.elbo._messages import describe_site
from zoo.inference.elbo._sites import Run, Site, all_sites
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import ModelGuideCall, trace_model_and_guide
from zoo.inference.elbo._validation.vectorization import preserve_rng_and_buffers
from zoo.inference.elbo.nonreparameterized import NonReparameterized


class _IgnoreGradMode(TorchFunctionMode):
    """Keeps gradients enabled in spite of ``torch.no_grad`` and ``set_grad_enabled``."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a torch function, except the one that sets the grad mode."""
        return None if func is set_grad_enabled else func(*args, **(kwargs or {}))


def check_grad_mode(run: Run, call: ModelGuideCall, subsamples: Subsamples, vectorized: bool) -> None:
    """Raise an error if the distribution of a site lost its gradient because it was created without gradients.

    Sampling without gradients is harmless, since densities are always computed with gradients enabled. A tensor that
    was computed without gradients is a constant, as everywhere in torch; but a view made without gradients has
    ``requires_grad=True``.
    """
    without_grad = []
    for program, site in all_sites([run]):
        is_view = any(map(is_no_grad_view, _tensors_of(site.distribution).values()))
        if is_view or site.uses_no_grad_view or ends_in_no_grad_view(site.density.log_prob):
            raise ValueError(_no_gradient_error(program, site))
        if not site.grad_enabled:
            without_grad.append((program, site))
    if not without_grad:
        return
    values = {} if vectorized else {name: site.value for name, site in run.guide.items()}
    with preserve_rng_and_buffers(call):
        other_run = trace_model_and_guide(call, subsamples, values, around=_IgnoreGradMode)
    for program, site in without_grad:
        other = (other_run.guide if program == "guide" else other_run.model).get(site.name)
        is_inference = any(part.is_inference() for part in _tensors_of(site.distribution).values())
        if is_inference or (other is not None and _has_fewer_gradients(site.distribution, other.distribution)):
            raise ValueError(_no_gradient_error(program, site))


def ends_in_no_grad_view(x: Tensor) -> bool:
    """Return whether an operand of a tensor was computed only from a view made without gradients.

    If it was computed from other tensors, too, the autograd graph does not show the view; see
    ``Provenance.uses_no_grad_view``.
    """
    nodes, seen = [x.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        inputs = [each for each, _ in node.next_functions if each is not None]
        if not inputs and not hasattr(node, "variable"):  # not the node of a leaf
            return True
        nodes += inputs
    return False


def _no_gradient_error(program: str, site: Site) -> str:
    return (
        f"the distribution of {describe_site(site.name, site.distribution)} in the {program} is created while "
        "gradients are disabled (torch.no_grad or inference_mode), so its parameters would not be trained; create it "
        "before, since sampling does not need torch.no_grad(), or call detach() on what is constant"
    )


def _has_fewer_gradients(distribution: Distribution, other: Distribution) -> bool:
    tensors, others = _tensors_of(distribution), _tensors_of(other)
    return any(x.requires_grad and name in tensors and not tensors[name].requires_grad for name, x in others.items())


def _tensors_of(distribution: Distribution) -> dict[tuple[int, str], Tensor]:
    """Return the tensors of a distribution by index of the part and attribute name."""
    base = distribution.base_dist if isinstance(distribution, NonReparameterized) else distribution
    parts = enumerate(nested_distributions(base))
    return {(i, name): x for i, part in parts for name, x in vars(part).items() if isinstance(x, Tensor)}
