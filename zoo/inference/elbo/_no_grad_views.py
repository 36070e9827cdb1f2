"""Views that are made under ``torch.no_grad``, and swallow gradients.

A view of a tensor with a gradient that is made there, by ``expand`` or ``broadcast_tensors``, says
``requires_grad=True`` all the same, but is a leaf: what flows back ends at the view. Distributions and plates make such
views of their parameters.
"""

from copy import copy

from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients.graphs._provenance.views import is_no_grad_view


def swallows_gradients(x: object) -> bool:
    """Return whether something is a view of a tensor with a gradient, and passes none on to it."""
    return isinstance(x, Tensor) and is_no_grad_view(x)


def with_gradients_restored(distribution: Distribution, views: dict[int, Tensor] | None = None) -> Distribution:
    """Return a distribution whose parameters pass gradients on; the same object if they do already.

    Args:
        distribution: whose own attributes hold its parameters.
        views: made so far, by the identity of those that swallow gradients.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> loc = torch.tensor(0.0, requires_grad=True)
        >>> with torch.no_grad():
        ...     distribution = Normal(loc, 1.0).expand([2])
        >>> distribution.log_prob(torch.ones(2)).sum().backward()
        >>> loc.grad is None
        True
        >>> with_gradients_restored(distribution).log_prob(torch.ones(2)).sum().backward()
        >>> loc.grad
        tensor(2.)
    """
    views = {} if views is None else views
    changed: dict[str, Tensor | Distribution] = {}
    for name, part in vars(distribution).items():
        if swallows_gradients(part):
            if id(part) not in views:
                views[id(part)] = part._base.as_strided(part.shape, part.stride(), part.storage_offset())
            changed[name] = views[id(part)]
        elif isinstance(part, Distribution) and (restored := with_gradients_restored(part, views)) is not part:
            changed[name] = restored
    if not changed:
        return distribution
    restored = copy(distribution)
    vars(restored).update(changed)
    return restored


def ends_nowhere(x: Tensor) -> bool:
    """Return whether a tensor was computed from nothing but such a view at some point.

    Where it was computed from others, too, the graph does not show it: see ``Provenance.uses_no_grad_view``.
    """
    nodes, seen = [x.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [each for each, _ in node.next_functions if each is not None]
        if not following and not hasattr(node, "variable"):  # which leaves have
            return True
        nodes += following
    return False
