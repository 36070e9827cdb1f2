import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast
from urllib.parse import quote, unquote

import pyro
import torch
from pyro.params import param_with_module_name
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

from zoo.gradients import Baseline, LearnedBaseline, Reinforce, ReinforceOutput
from zoo.gradients.control_variates import ControlVariate
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._control_variate import optimal_output
from zoo.inference.elbo._downstream_costs import Score, first, stack
from zoo.inference.elbo._site_baseline import SiteBaseline, prediction_of
from zoo.inference.elbo.baselines import BaselineLike, has_part, make_site_baseline

PREFIX = "site "


class Estimators(nn.Module):
    """A ``Reinforce`` for each site of a guide that has a score, made when the site is first seen.

    Args:
        baseline: of all sites, each of which gets a copy of an object; or of single sites by name. See
            ``make_site_baseline``.
        particles: how many there are.

    Raises:
        ValueError: there is no such baseline, two sites were given one, or there are fewer particles than it needs.
    """

    def __init__(self, baseline: BaselineLike | Mapping[str, BaselineLike] | None, particles: int):
        super().__init__()
        self.by_site = isinstance(baseline, Mapping)
        self.given = dict(baseline) if isinstance(baseline, Mapping) else {"": baseline}
        self.particles = particles
        self.sites = nn.ModuleDict()
        self.with_parameters: list[str] = []
        """Names of the sites whose baselines have parameters of their own."""
        self.registers = False
        self.register_load_state_dict_pre_hook(make_sites_of)
        placeholder = {"nn_baseline": nn.Identity()}
        for given in self.given.values():
            make_site_baseline(given, particles, placeholder)
        check_separate(self.given)
        if names := [name for name in self.given if not isinstance(name, str)]:
            raise ValueError(f"baseline= must have names of sites for its keys, got {names[0]!r}")

    @property
    def num_extra_samples(self) -> int:
        """How many particles are drawn beside the others, for estimates of the scaling alone."""
        baselines = [*self.given.values(), *self.modules()]
        return max((one.num_extra_samples for one in baselines if isinstance(one, ControlVariate)), default=0)

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
                baseline = make_site_baseline(given, self.particles, options)
            except ValueError as error:
                raise ValueError(f"site {name!r}: {error}") from None
            copied = isinstance(given, Baseline) and not self.by_site
            reinforce = Reinforce(deepcopy(baseline) if copied else baseline, maximize=True)
            self.sites[key] = reinforce.to(device).train(self.training)
            if next(reinforce.parameters(), None) is not None:
                self.with_parameters.append(name)
                if self.registers:
                    register_parameters(name, reinforce.baseline)
        return cast(Reinforce, self.sites[key])

    def check_names(self, known: Iterable[str]) -> None:
        """Raise an error if a baseline was given to a site that has none.

        Raises:
            ValueError: there is no such site in the guide, or it has a pathwise gradient.
        """
        if self.by_site and (unknown := set(self.given) - set(known)):
            raise ValueError(
                f"there is a baseline for {quote_names(unknown)}, but no site of the guide of that name that needs "
                f"one; those that do are {quote_names(known)}"
            )

    @contextmanager
    def in_parameter_store(self) -> Iterator[None]:
        """Register the parameters of baselines in Pyro's parameter store, and announce them as ``pyro.param`` does.

        So ``pyro.infer.SVI`` finds them, and ``pyro.optim`` knows them by name: ``baselines.SITE.net.weight``.
        """
        self.registers = True
        try:
            for name in self.with_parameters:
                register_parameters(name, self.of(name).baseline)
            yield
        finally:
            self.registers = False
        for name in self.with_parameters:
            for parameter in self.of(name).parameters():
                if parameter.requires_grad:
                    announce(parameter)

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
        if isinstance(reinforce.baseline, ControlVariate):
            return optimal_output(reinforce, reinforce.baseline, score, particles)
        of_site = has_part(reinforce.baseline, SiteBaseline)
        context = prediction_of(score, site.name)[:particles] if of_site else None
        score = first(particles, score)
        if has_part(reinforce.baseline, LearnedBaseline):
            context = context_of(score, site.name)
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


def register_parameters(site: str, baseline: nn.Module) -> None:
    """Register a baseline's parameters in Pyro's parameter store, unless the program has done so under its own names.

    Values that the store already has under these names, as after ``pyro.get_param_store().load``, are taken from it.

    Raises:
        ValueError: the store has a parameter of another shape under that name.
    """
    store = pyro.get_param_store()
    for path, parameter in list(baseline.named_parameters()):
        name = param_with_module_name(f"baselines.{site}", path)
        if not parameter.requires_grad or store.param_name(parameter) not in (None, name):
            continue
        if name not in store:
            store[name] = parameter
        stored = dict(store.named_parameters())[name]
        if stored.shape != parameter.shape:
            raise ValueError(
                f"the parameter store has {name!r} of shape {tuple(stored.shape)} from before, but the baseline of "
                f"site {site!r} needs {tuple(parameter.shape)}; call pyro.clear_param_store(), or delete that entry"
            )
        if stored is not parameter:
            owner, _, attribute = path.rpartition(".")
            baseline.get_submodule(owner)._parameters[attribute] = stored  # type: ignore[assignment]


def announce(parameter: nn.Parameter) -> None:
    """Send the message that ``pyro.param`` sends for a parameter of the store."""
    name = pyro.get_param_store().param_name(parameter)
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


def site_of_key(key: str) -> str:
    """Return the name of a site by its key among modules."""
    return unquote(key.removeprefix(PREFIX))


def make_sites_of(estimators: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Make the estimators of those sites that a state is to be loaded for, before they are met."""
    start = f"{prefix}sites.{PREFIX}"
    for key in state:
        if key.startswith(start):
            cast(Estimators, estimators).of(site_of_key(PREFIX + key.removeprefix(start).split(".")[0]))
