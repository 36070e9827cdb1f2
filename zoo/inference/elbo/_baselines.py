"""Baselines of the sites of a guide, by name, as objects, or as specified in ``infer`` like those of Pyro."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro.distributions.util import detach
from torch import Tensor, nn

from zoo.gradients import (
    Baseline,
    BaselineOutput,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    SumBaseline,
    make_baseline,
)
from zoo.gradients._tensors import zero_masked
from zoo.gradients.control_variates import ControlVariate
from zoo.inference.elbo._downstream_costs import ScoreFunctionTerm

BaselineLike = str | float | Baseline
OPTIONS = ("use_decaying_avg_baseline", "baseline_beta", "nn_baseline", "nn_baseline_input", "baseline_value")
"""Keys of ``infer={"baseline": {...}}``, named as in Pyro."""


class SiteBaseline(Baseline):
    """Baseline of a site with ``nn_baseline(nn_baseline_input)`` or ``baseline_value`` in its ``infer``.

    As in Pyro, the gradient of the loss reaches everything that the prediction was computed from, which must be
    parameters of the baseline only; the input of ``nn_baseline``, ``net`` if it is a module, is detached.
    """

    def __init__(self, net: nn.Module | None = None):
        super().__init__()
        self.net = net

    def forward(self, signal: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> BaselineOutput:
        """Return the prediction ``context``, and its squared error: sum over the batch, mean over particles."""
        if context is None:
            raise ValueError("a SiteBaseline needs context=, its prediction")
        loss = zero_masked((context - signal.detach()) ** 2, mask).sum() / len(signal)
        return BaselineOutput(context.detach().to(signal.dtype), loss if self.training else loss.detach())


def make_site_baseline(
    given: BaselineLike | None, num_particles: int, options: Mapping[str, Any] | None = None
) -> Baseline:
    """Return a baseline from an object, a name or a constant, or from the options of a site if ``given`` is None.

    The default is leave-one-out if there are several particles, else a moving average.
    """
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise ValueError(f"infer['baseline'] must be a dictionary of {', '.join(OPTIONS)}, got {options!r}")
    if unknown := set(options) - set(OPTIONS):
        raise ValueError(f"infer['baseline'] has no option {sorted(unknown)[0]!r}; there are {', '.join(OPTIONS)}")
    if given is None:
        baseline = _from_options(options) or (LeaveOneOutBaseline(0) if num_particles > 1 else MovingAverageBaseline())
    elif isinstance(given, Baseline):
        baseline = given
    elif given == "optimal":
        baseline = ControlVariate()
    elif isinstance(given, str | float | int):
        baseline = make_baseline(str(given), make_net=lambda: _network(options), sample_dim=0, extra=["optimal"])
    else:
        raise ValueError(f"a baseline must be a name, a number or a Baseline, got {type(given).__name__}")
    _check_particles(baseline, num_particles)
    return baseline


def _network(options: Mapping[str, Any]) -> nn.Module:
    net = options.get("nn_baseline")
    if not isinstance(net, nn.Module):
        raise ValueError(
            "a learned baseline needs a network: pass baseline={'site': LearnedBaseline(net)}, or specify "
            "infer={'baseline': {'nn_baseline': net, 'nn_baseline_input': x}} at the site"
        )
    return net


def _from_options(options: Mapping[str, Any]) -> Baseline | None:
    """Return the baseline specified by the options of a site; None if there is none."""
    for option, other in (("baseline_beta", "use_decaying_avg_baseline"), ("nn_baseline_input", "nn_baseline")):
        if option in options and other not in options:
            raise ValueError(f"infer['baseline'] has {option!r}, which has no effect without {other!r}")
    net = options.get("nn_baseline")
    if net is not None and options.get("baseline_value") is not None:
        raise ValueError("infer['baseline'] has both 'nn_baseline' and 'baseline_value'; remove one of them")
    if net is not None and not callable(net):
        raise ValueError(f"nn_baseline must be a module, or a function of nn_baseline_input, got {net!r}")
    parts: list[Baseline] = []
    if options.get("use_decaying_avg_baseline"):
        parts.append(MovingAverageBaseline(options.get("baseline_beta", 0.9)))
    if net is not None or options.get("baseline_value") is not None:
        parts.append(SiteBaseline(net if isinstance(net, nn.Module) else None))
    return parts[0] if len(parts) == 1 else SumBaseline(*parts) if parts else None


def _check_particles(baseline: Baseline, num_particles: int) -> None:
    """Raise an error if a baseline is not computed over particles, or needs more of them."""
    for part in baseline.modules():
        if not isinstance(part, LeaveOneOutBaseline | ControlVariate):
            continue
        name = type(part).__name__
        if part.dim != 0:
            raise ValueError(f"particles are the first dimension: use {name}(dim=0), got dim={part.dim}")
        if isinstance(part, ControlVariate) and part is not baseline:
            raise ValueError(f"{name} has one factor for each parameter, and cannot be added to other baselines")
        if num_particles < 2 and not (isinstance(part, ControlVariate) and part.num_extra_samples):
            raise ValueError(
                f"{name} needs at least 2 particles: set num_particles=2 or more, got {num_particles}; or "
                "use 'moving_average'"
            )


def has_part(baseline: nn.Module, kind: type[Baseline]) -> bool:
    return any(isinstance(part, kind) for part in baseline.modules())


def site_prediction(score: ScoreFunctionTerm, name: str) -> Tensor:
    """Compute the baseline specified by a site, ``(particles, *batch)``, with its gradient."""
    num_particles, *batch = score.signal.shape
    if len(score.sites) == 1:  # may be vectorized
        return _expand_prediction(_predict(score.site.infer["baseline"], name), batch, name, [num_particles])
    blank = score.signal.new_zeros(batch)
    predictions = [None if site is None else _predict(site.infer["baseline"], name) for site in score.sites]
    return torch.stack([blank if x is None else _expand_prediction(x, batch, name) for x in predictions])


def _predict(options: Mapping[str, Any], name: str) -> Tensor:
    function = options.get("nn_baseline")
    if function is None:
        return torch.as_tensor(options["baseline_value"])
    if (given := options.get("nn_baseline_input")) is None and isinstance(function, nn.Module):
        raise ValueError(missing_input(name))
    try:
        prediction = function(detach(given))
    except (ValueError, RuntimeError) as error:  # raised by a network for an unsuitable input
        raise ValueError(f"the baseline of site {name!r}: {error}") from error
    if not isinstance(prediction, Tensor):
        raise ValueError(f"the nn_baseline of site {name!r} must return a tensor, got {prediction!r}")
    return prediction


def missing_input(name: str) -> str:
    return (
        f"the baseline of site {name!r} needs an input for its network: specify "
        "infer={'baseline': {'nn_baseline_input': x}} at the site"
    )


def _expand_prediction(prediction: Tensor, batch: Sequence[int], name: str, particles: Sequence[int] = ()) -> Tensor:
    """Expand a prediction to particles and leading plates; a last dimension of size 1 may be removed."""
    shape = [*particles, *batch]
    for found in (prediction, prediction.squeeze(-1)):
        leading = len(shape) - found.ndim
        if leading >= 0 and found.shape == torch.Size(shape[leading:]):
            return found.expand(*shape)
    raise ValueError(
        f"the baseline at site {name!r} has shape {tuple(prediction.shape)}, which does not fit the batch "
        f"{tuple(batch)} of the site's plates"
    )
