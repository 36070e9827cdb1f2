import weakref
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, cast
from urllib.parse import quote, unquote

import torch
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

from zoo.gradients import Baseline, Reinforce, ReinforceOutput, RunningScale
from zoo.gradients.graphs.provenance import listed
from zoo.gradients.optimal_scaling import OptimalScaling
from zoo.inference.black_box.baselines import BaselineLike, is_learned, make_baseline
from zoo.inference.black_box.control_variate import optimal_output
from zoo.inference.black_box.signals import Score, first, stack

PREFIX = "site "


class Estimators(nn.Module):
    """A ``Reinforce`` for each site of a guide that has a score, made when the site is first seen.

    Args:
        baseline: of all sites, each of which gets a copy of an object; or of single sites by name. See
            ``make_baseline``.
        scale: of all sites, each of which gets a copy.
        particles: how many there are.

    Raises:
        ValueError: there is no such baseline, two sites were given one, or there are fewer particles than it needs.
    """

    def __init__(
        self, baseline: BaselineLike | Mapping[str, BaselineLike] | None, scale: RunningScale | None, particles: int
    ):
        super().__init__()
        self.by_site = isinstance(baseline, Mapping)
        self.given = dict(baseline) if isinstance(baseline, Mapping) else {"": baseline}
        self.templates = (scale,)  # hidden in a tuple: it is copied, and no part of this module
        self.particles = particles
        self.sites = nn.ModuleDict()
        self.register_load_state_dict_pre_hook(make_sites_of)
        placeholder = {"nn_baseline": nn.Identity()}
        for given in self.given.values():
            make_baseline(given, particles, placeholder)
        check_separate(self.given)
        if names := [name for name in self.given if not isinstance(name, str)]:
            raise ValueError(f"baseline= must have names of sites for its keys, got {names[0]!r}")

    @property
    def separate_samples(self) -> int:
        """How many particles are drawn beside the others, for estimates of the scaling alone."""
        baselines = [*self.given.values(), *self.modules()]
        return max((one.separate_samples for one in baselines if isinstance(one, OptimalScaling)), default=0)

    def of(self, name: str, options: Mapping[str, Any] | None = None, device: torch.device | None = None) -> Reinforce:
        """Give the estimator of a site.

        Args:
            name: of the site.
            options: what the site says of its baseline.
            device: where it is made.

        Raises:
            ValueError: that makes no sense.
        """
        if (key := key_of(name)) not in self.sites:
            given = self.given.get(name if self.by_site else "")
            try:
                baseline = make_baseline(given, self.particles, options)
            except ValueError as error:
                raise ValueError(f"site {name!r}: {error}") from None
            copied = isinstance(given, Baseline) and not self.by_site
            scale = deepcopy(self.templates[0])
            self.sites[key] = Reinforce(deepcopy(baseline) if copied else baseline, scale, maximize=True)
            self.sites[key].to(device).train(self.training)
        return cast(Reinforce, self.sites[key])

    def check_names(self, known: Iterable[str]) -> None:
        """Raise an error if a baseline was given to a site that has none.

        Raises:
            ValueError: there is no such site in the guide, or it has a pathwise gradient.
        """
        if self.by_site and (unknown := set(self.given) - set(known)):
            raise ValueError(
                f"there is a baseline for {listed(unknown)}, but no site of the guide of that name that needs one; "
                f"those that do are {listed(known)}"
            )

    def announce_parameters(self) -> None:
        """Show the networks' parameters to whoever looks for parameters, as ``pyro.infer.SVI`` does."""
        for name, parameter in self.sites.named_parameters():
            announce(f"baselines.{name}", parameter)

    def forward(self, score: Score, particles: int) -> ReinforceOutput:
        """Estimate a site's part of the gradient.

        Args:
            score: of the site in all particles.
            particles: how many of them count; any others are for estimates of a scaling.

        Raises:
            ValueError: what the site says of its baseline makes no sense.
        """
        site = score.site
        reinforce = self.of(site.name, site.infer.get("baseline"), score.signal.device)
        if isinstance(reinforce.baseline, OptimalScaling):
            return optimal_output(reinforce, reinforce.baseline, score, particles)
        score = first(particles, score)
        context = context_of(score, site.name) if is_learned(reinforce.baseline) else None
        try:
            output: ReinforceOutput = reinforce(score.log_prob, score.signal, context, score.present)
        except (ValueError, RuntimeError) as error:  # the latter from a network
            raise ValueError(f"the baseline of site {site.name!r}: {error}") from None
        return output


def check_separate(given: Mapping[str, object]) -> None:
    """Raise an error if a baseline is to serve two sites: for the second it would know what the first has drawn."""
    owners: dict[nn.Module, str] = {}
    for name, baseline in given.items():
        for part in baseline.modules() if isinstance(baseline, Baseline) else ():
            if isinstance(part, Baseline) and part in owners:
                raise ValueError(
                    f"sites {owners[part]!r} and {name!r} were given the same {type(part).__name__} baseline; make a "
                    "separate one for each"
                )
            owners[part] = name


def announce(name: str, parameter: nn.Parameter) -> None:
    """Send the message that ``pyro.param`` would, without an entry in the global store."""
    shown = parameter.view_as(parameter)
    shown.unconstrained = weakref.ref(parameter)  # type: ignore[attr-defined]

    def give() -> Tensor:
        return shown

    effectful(give, type="param")(name=name)


def context_of(score: Score, name: str) -> Tensor:
    """Find what the networks of a site's baseline look at, ``(particles, *batch, features)``."""
    inputs = [site and (site.infer.get("baseline") or {}).get("nn_baseline_input") for site in score.sites]
    given = [one for one in inputs if one is not None]
    if not given or not isinstance(given[0], Tensor):
        raise ValueError(
            f"the baseline of site {name!r} needs an input for its network: say at the site "
            "infer={'baseline': {'nn_baseline_input': x}}"
        )
    shape = (*score.signal.shape[1:], given[0].shape[-1])
    try:
        if len(inputs) == 1:  # one run may hold all particles
            return given[0].expand(len(score.signal), *shape)
        return stack(inputs, given[0].new_zeros(()).expand(shape))
    except RuntimeError:
        raise ValueError(
            f"the input of the baseline's network at site {name!r} has shape {tuple(given[0].shape)}, which does not "
            f"fit the batch {tuple(score.signal.shape[1:])} with features behind it"
        ) from None


def key_of(name: str) -> str:
    """Key of a site among modules, whose names can hold no dot, and must not be those of attributes."""
    return PREFIX + quote(name, safe=" ").replace(".", "%2E")


def make_sites_of(estimators: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Make the estimators of those sites that a state is to be loaded for, before they are met."""
    start = f"{prefix}sites.{PREFIX}"
    for key in state:
        if key.startswith(start):
            cast(Estimators, estimators).of(unquote(key.removeprefix(start).split(".")[0]))
