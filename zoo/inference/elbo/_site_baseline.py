"""Baselines that sites of a guide compute, as ``pyro.infer.TraceGraph_ELBO`` takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro.distributions.util import detach
from torch import Tensor, nn

from zoo.gradients import Baseline, BaselineOutput
from zoo.gradients._tensors import zero_masked
from zoo.inference.elbo._downstream_costs import Score


class SiteBaseline(Baseline):
    """Baseline of a site that asks for ``nn_baseline(nn_baseline_input)`` or ``baseline_value`` in its ``infer``.

    As in Pyro, the gradient of its loss flows into whatever the prediction was computed from, which must be parameters
    of the baseline alone; the input of ``nn_baseline`` is detached.

    Args:
        net: ``nn_baseline`` if it is a module, whose parameters become this module's; None for a function or a value.
    """

    def __init__(self, net: nn.Module | None = None):
        super().__init__()
        self.net = net

    def forward(self, signal: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> BaselineOutput:
        """Return the prediction, and its squared error, summed over the batch and averaged over particles as in Pyro.

        Args:
            signal: learning signals, ``(particles, *batch)``.
            context: the prediction for each of them, see ``prediction_of``.
            mask: false where the signal is to be ignored.

        Raises:
            ValueError: there is no prediction.
        """
        if context is None:
            raise ValueError("a SiteBaseline needs context=, its prediction")
        loss = zero_masked((context - signal.detach()) ** 2, mask).sum() / len(signal)
        return BaselineOutput(context.detach().to(signal.dtype), loss if self.training else loss.detach())


def prediction_of(score: Score, name: str) -> Tensor:
    """Compute the baseline that a site asks for, ``(particles, *batch)``, with its gradient.

    Raises:
        ValueError: it cannot be computed, or its shape is not that of the site's plates.
    """
    particles, *batch = score.signal.shape
    if len(score.sites) == 1:  # one run may hold all particles
        return fitted(computed(score.site.infer["baseline"], name), batch, name, [particles])
    blank = score.signal.new_zeros(batch)
    return torch.stack(
        [blank if site is None else fitted(computed(site.infer["baseline"], name), batch, name) for site in score.sites]
    )


def computed(options: Mapping[str, Any], name: str) -> Tensor:
    """Compute the baseline from what a site says of it in one run."""
    function = options.get("nn_baseline")
    if function is None:
        return torch.as_tensor(options["baseline_value"])
    if (given := options.get("nn_baseline_input")) is None and isinstance(function, nn.Module):
        raise ValueError(
            f"the baseline of site {name!r} needs an input for its network: say at the site "
            "infer={'baseline': {'nn_baseline_input': x}}"
        )
    try:
        prediction = function(detach(given))
    except (ValueError, RuntimeError) as error:  # from a network that does not take its input
        raise ValueError(f"the baseline of site {name!r}: {error}") from error
    if not isinstance(prediction, Tensor):
        raise ValueError(f"the nn_baseline of site {name!r} must return a tensor, got {prediction!r}")
    return prediction


def fitted(prediction: Tensor, batch: Sequence[int], name: str, particles: Sequence[int] = ()) -> Tensor:
    """Repeat a prediction for particles and leading plates, and drop a last dimension of size 1.

    Raises:
        ValueError: its shape does not fit.
    """
    shape = [*particles, *batch]
    for found in (prediction, prediction.squeeze(-1)):
        leading = len(shape) - found.ndim
        if leading >= 0 and found.shape == torch.Size(shape[leading:]):
            return found.expand(*shape)
    raise ValueError(
        f"the baseline at site {name!r} has shape {tuple(prediction.shape)}, which does not fit the batch "
        f"{tuple(batch)} of the site's plates"
    )
