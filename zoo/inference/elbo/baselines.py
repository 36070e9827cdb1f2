from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo.gradients import Baseline, LeaveOneOutBaseline, MovingAverageBaseline, SumBaseline, make_baseline
from zoo.gradients.control_variates import ControlVariate
from zoo.inference.elbo._site_baseline import SiteBaseline

BaselineLike = str | float | Baseline
OPTIONS = ("use_decaying_avg_baseline", "baseline_beta", "nn_baseline", "nn_baseline_input", "baseline_value")
"""What ``infer={"baseline": {...}}`` of a site of the guide may hold, by the names that Pyro has for it."""


def make_site_baseline(
    given: BaselineLike | None, particles: int, options: Mapping[str, Any] | None = None
) -> Baseline:
    """Make the baseline of a site.

    Args:
        given: a baseline, the name of one (``optimal`` or one of ``zoo.gradients.BASELINES``), or a number for a
            constant. None for what the options say; without any, leave-one-out if there are particles to leave out,
            else a moving average.
        particles: how many there are.
        options: what the site says in ``infer={"baseline": {...}}``.

    Raises:
        ValueError: there is no such baseline or option, a learned one has no network, or there are fewer particles than
            it needs.

    Example:
        >>> make_site_baseline(None, particles=4), make_site_baseline("none", particles=4)
        (LeaveOneOutBaseline(), Baseline())
    """
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise ValueError(f"infer['baseline'] must be a dictionary of {', '.join(OPTIONS)}, got {options!r}")
    if unknown := set(options) - set(OPTIONS):
        raise ValueError(f"infer['baseline'] has no option {sorted(unknown)[0]!r}; there are {', '.join(OPTIONS)}")
    if given is None:
        baseline = from_options(options) or (LeaveOneOutBaseline(0) if particles > 1 else MovingAverageBaseline())
    elif isinstance(given, Baseline):
        baseline = given
    elif given == "optimal":
        baseline = ControlVariate()
    else:
        baseline = named(given, options)
    check_fits(baseline, particles)
    return baseline


def named(name: str | float, options: Mapping[str, Any]) -> Baseline:
    """Make a baseline from its name, with the network that the options hold."""
    if not isinstance(name, str | float | int):
        raise ValueError(f"a baseline must be a name, a number or a Baseline, got {type(name).__name__}")
    return make_baseline(str(name), net=lambda: network(options), sample_dim=0, extra=["optimal"])


def network(options: Mapping[str, Any]) -> nn.Module:
    """Find the network of a learned baseline."""
    net = options.get("nn_baseline")
    if not isinstance(net, nn.Module):
        raise ValueError(
            "a learned baseline needs its network: give baseline={'site': LearnedBaseline(net)}, or say at the site "
            "infer={'baseline': {'nn_baseline': net, 'nn_baseline_input': x}}"
        )
    return net


def from_options(options: Mapping[str, Any]) -> Baseline | None:
    """Make the baseline that a site asks for; None if it asks for none, as by False or None for Pyro."""
    for option, of in (("baseline_beta", "use_decaying_avg_baseline"), ("nn_baseline_input", "nn_baseline")):
        if option in options and of not in options:
            raise ValueError(f"infer['baseline'] has {option!r}, which does nothing without {of!r}")
    net = options.get("nn_baseline")
    if net is not None and options.get("baseline_value") is not None:
        raise ValueError("infer['baseline'] has both 'nn_baseline' and 'baseline_value'; leave one of them out")
    if net is not None and not callable(net):
        raise ValueError(f"nn_baseline must be a module, or a function of nn_baseline_input, got {net!r}")
    parts: list[Baseline] = []
    if options.get("use_decaying_avg_baseline"):
        parts.append(MovingAverageBaseline(options.get("baseline_beta", 0.9)))
    if net is not None or options.get("baseline_value") is not None:
        parts.append(SiteBaseline(net if isinstance(net, nn.Module) else None))
    return parts[0] if len(parts) == 1 else SumBaseline(*parts) if parts else None


def check_fits(baseline: Baseline, particles: int) -> None:
    """Raise an error if a baseline compares something else than particles, or needs more of them."""
    for part in baseline.modules():
        kind = type(part).__name__
        if not isinstance(part, LeaveOneOutBaseline | ControlVariate):
            continue
        if part.dim != 0:
            raise ValueError(f"particles are the first dimension: take {kind}(dim=0), got dim={part.dim}")
        if isinstance(part, ControlVariate) and part is not baseline:
            raise ValueError(f"{kind} is one number for each parameter, and cannot be added to other baselines")
        if particles < 2 and not (isinstance(part, ControlVariate) and part.num_extra_samples):
            raise ValueError(
                f"a {kind} baseline compares particles, and needs at least 2: set num_particles=2 or more, got "
                f"{particles}; or take 'moving_average'"
            )


def has_part(baseline: nn.Module, kind: type[Baseline]) -> bool:
    """Return whether a baseline is of a kind, or adds up some of which one is."""
    return any(isinstance(part, kind) for part in baseline.modules())
