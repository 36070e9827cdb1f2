import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine import Trace
from torch import Tensor, nn

from zoo._constraints import COUNT, Constraint, check_constraints
from zoo.gradients import Reinforce, RunningStd
from zoo.gradients._steps import end_step, in_backward
from zoo.gradients.estimators import VIMCOBaseline
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._bounds import importance_bound, importance_objective
from zoo.inference.elbo._estimators import Estimators
from zoo.inference.elbo._objective import Objective, elbo_objective, sums
from zoo.inference.elbo._sites import Run, nesting
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import Program, record, record_at_once
from zoo.inference.elbo._validation.argument_signatures import Passes
from zoo.inference.elbo._validation.checks import check_match
from zoo.inference.elbo._validation.comparison import Both
from zoo.inference.elbo._validation.finite import check_finite, check_gradients
from zoo.inference.elbo._validation.grad_mode import check_grad_mode
from zoo.inference.elbo._validation.site_registry import Newcomers
from zoo.inference.elbo._validation.vectorization import FAILURES, check_apart
from zoo.inference.elbo._validation.verified_programs import Programs
from zoo.inference.elbo.baselines import BaselineLike

NESTING = Constraint("a whole number of 0 or more, or infinite", lambda x: x == math.inf or (x >= 0 and x == int(x)))


class BlackBoxELBO(ELBO, nn.Module):
    """Black-box variational inference for any model and guide of Pyro; takes the place of ``pyro.infer.Trace_ELBO``.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014. A site of the guide has a pathwise gradient if
    its distribution has ``rsample``; the others go through ``zoo.gradients.Reinforce``, with those terms of the ELBO
    alone that they influence, and a baseline. Who influences whom is followed through torch functions, Python control
    flow and plates. Plates are taken at their word: elements of one must be independent given what is outside. No
    pathwise gradient sees a step (``torch.where``, rounding): wrap such a site's distribution in
    ``NonReparameterized``. Sites have their gradient whatever the grad mode around their sample statement.

    What would make the gradient wrong is looked for at runs 1, 2, 4, 8, … of programs with the same options: booleans,
    strings, None and enums among the arguments. So what another option switches on is checked, too.

    It is an ``nn.Module`` that keeps its baselines: ``elbo(model, guide)`` has their networks among its parameters, and
    ``SVI`` finds and trains them, by the names ``baselines.SITE.…`` in Pyro's parameter store. They learn in train
    mode, whenever a loss with a gradient is taken.

    Args:
        num_particles: samples of the guide in each estimate.
        vectorize_particles: draw all of them in one run, in a plate around model and guide. Faster, for programs that
            do not take different ways for different values, and keep particles apart, which is tried.
        baseline: ``"none"``, ``"moving_average"``, ``"leave_one_out"`` (of the particles), ``"learned"``, sums of these
            (see ``zoo.gradients.BASELINES``), ``"optimal"`` (the paper's control variate: ``ControlVariate`` has its
            choices), a number, or a ``Baseline``, of which each site gets a copy. Or a dictionary of these by the names
            of sites. None for what a site of the guide says in ``infer={"baseline": {...}}``, with the options
            ``use_decaying_avg_baseline``, ``baseline_beta``, ``nn_baseline``, ``nn_baseline_input`` and
            ``baseline_value`` of ``pyro.infer.TraceGraph_ELBO``; else for leave-one-out from 2 particles on, and a
            moving average with 1.
        scale: divide the loss by the running standard deviation of all sites' learning signals; a copy is kept. It is
            the whole loss, and with it the gradient of the model, as its parts could not be scaled apart without moving
            the optimum.
        bound: ``"elbo"``, or ``"iwae"`` for the importance-weighted bound of the particles; with VIMCO's baseline.
        max_plate_nesting: as in Pyro; found by a first run if particles are vectorised and it is not given, with room
            for batches that no plate declares.
        retain_graph: keep the graph after ``loss_and_grads``.

    Raises:
        ValueError: an option makes no sense, or there are fewer particles than the baseline needs. In a step: model and
            guide do not fit each other, or the gradient would not be right; see the sentence.
        FloatingPointError: in a step: the bound, or a gradient after ``loss_and_grads``, is not finite.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Bernoulli(logits=x * pyro.param("slope", torch.tensor(0.0))))
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), BlackBoxELBO(num_particles=2))
        >>> svi.step(torch.ones(10)) > 0
        True
    """

    def __init__(
        self,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        baseline: BaselineLike | Mapping[str, BaselineLike] | None = None,
        scale: RunningStd | None = None,
        bound: Literal["elbo", "iwae"] = "elbo",
        max_plate_nesting: float = math.inf,
        retain_graph: bool | None = None,
    ):
        nn.Module.__init__(self)
        check_options(num_particles, vectorize_particles, baseline, scale, bound, max_plate_nesting)
        ELBO.__init__(self, num_particles, max_plate_nesting, retain_graph=retain_graph)
        self.vectorize_particles = vectorize_particles  # late, as Pyro would count the particles' plate as nested
        self.estimators = Estimators(baseline, num_particles)
        self.scale = deepcopy(scale)
        self.multi_sample = Reinforce(VIMCOBaseline(dim=0), maximize=True) if bound == "iwae" else None
        self.newcomers = Newcomers()
        self.steps = 0
        self.kept_apart = Programs()
        self.passed = Passes()

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Estimate the negative bound, and learn nothing from it."""
        with torch.no_grad():
            runs = self._runs(model, guide, args, kwargs, self.num_particles)
            if self.multi_sample is None:
                log_p, log_q, _ = sums(runs, first=None)
                bound = (log_p - log_q) / self.num_particles
            else:
                bound = importance_bound(runs, self._at_once(self.num_particles)).sum()
        found: float = bound.item()
        check_finite(found, found, runs, self.steps)
        return -found

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the negative bound, with our gradient.

        Where all sites are pathwise the second derivative is that of the estimate, too; elsewhere it is refused. The
        transforms of ``torch.func`` can be taken of it, but for ``vmap``.
        """
        try:
            objective = self._step(model, guide, args, kwargs)
        except RuntimeError as error:
            if torch._C._functorch.peek_interpreter_stack() is None or "vmap" not in str(error):
                raise
            raise ValueError(
                "the ELBO cannot be taken under torch.func.vmap, as it is looked at whether values are finite and in "
                "their support; loop, or use vectorize_particles=True for many particles"
            ) from error
        return objective.loss - objective.loss.detach() - objective.bound

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Estimate the negative bound, and add our gradient to that of the parameters."""
        if not torch.is_grad_enabled():
            raise ValueError(
                "loss_and_grads is called where gradients are off (torch.no_grad or inference_mode), and nothing would "
                "learn; call it outside, or loss() to evaluate"
            )
        with poutine.trace(param_only=True) as shown, self.estimators.in_parameter_store():
            objective = self._step(model, guide, args, kwargs)
        if objective.loss.requires_grad:
            objective.loss.backward(retain_graph=self.retain_graph)
            parameters = {name: site["value"].unconstrained() for name, site in shown.trace.nodes.items()}  # type: ignore[union-attr]
            check_gradients(parameters, lambda: self._runs(model, guide, args, kwargs, 1), self.steps)
        return -objective.bound.item()

    def _step(self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Objective:
        """Estimate the bound and its gradient, and let the baselines learn."""
        self.steps += 1
        if not in_backward():
            end_step(self)  # each call draws its own particles, which no other call's signals know
        particles = self.num_particles + self.estimators.num_extra_samples
        runs, at_once = self._runs(model, guide, args, kwargs, particles), self._at_once(particles)
        if self.multi_sample is None:
            objective = elbo_objective(runs, self.estimators, self.num_particles, at_once)
        else:
            objective = importance_objective(runs, self.multi_sample, at_once)
        objective = self._scaled(objective)
        check_finite(objective.bound.item(), objective.loss.item(), runs, self.steps)
        return objective

    def _scaled(self, objective: Objective) -> Objective:
        """Divide the whole loss by the running scale of the learning signals.

        A parameter may have a pathwise and a score part, or be shared by sites: if one part alone, or each by another
        number, were divided, the gradient would vanish somewhere else.
        """
        if self.scale is None or not objective.advantages:
            return objective
        advantages = torch.cat(objective.advantages)
        self.scale.to(advantages.device)
        loss = objective.loss / self.scale.value
        if self.scale.training:
            self.scale.update(advantages)
        return objective._replace(loss=loss)

    def _runs(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], particles: int
    ) -> list[Run]:
        """Run guide and model for each particle, or once for all; see that they fit each other."""
        for what, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise ValueError(f"the {what} must be a function or a module that samples, got {program!r}")
        drawn: Subsamples = {}
        both: Both = (model, guide, args, kwargs)
        signature = self.passed.signature_of(*both)
        # At new options, which may switch on what is wrong; and ever more seldom, as it may have no weight at first.
        due = (self.passed[signature] + 1).bit_count() == 1
        if self._at_once(particles):
            runs = [self._run_at_once(particles, both, drawn, due)]
        else:
            runs = self._run_one_by_one(particles, both, drawn, due)
        self.passed.add(signature)
        return runs

    def _run_one_by_one(self, particles: int, both: Both, drawn: Subsamples, due: bool) -> list[Run]:
        """Run guide and model for each particle."""
        runs = [record(*both, drawn, watch_flags=due) for _ in range(particles)]
        for run in runs:
            check_match(run)
            new = self.newcomers.check(run)
            if new or due:
                check_grad_mode(run, both, drawn, at_once=False)
            if new or run.steered_by:
                self.newcomers.greet(run)
        if torch.jit.is_tracing() and (names := frozenset().union(*(run.steered_by for run in runs))):
            raise ValueError(
                f"the values of {quote_names(names)} steer the program (if, item(), an index), and torch.jit.trace "
                "would keep the way of its one run for all others; call the ELBO without it"
            )
        return runs

    def _run_at_once(self, particles: int, both: Both, drawn: Subsamples, due: bool) -> Run:
        """Run guide and model once for all particles, and see that it keeps them apart."""
        model, guide, *_ = both
        if self.max_plate_nesting == math.inf:
            with torch.no_grad():
                self.max_plate_nesting = nesting(record(*both, drawn, watch_flags=True))
        room = int(self.max_plate_nesting)
        try:
            run = record_at_once(particles, room + 1, *both, drawn, watch_flags=due)
        except FAILURES:
            check_apart(room, both, drawn, particles)  # which knows more of the reason
            raise
        check_match(run)
        new = self.newcomers.check(run)
        if new or due:
            check_grad_mode(run, both, drawn, at_once=True)
        if new or due or (model, guide) not in self.kept_apart:
            check_apart(room, both, drawn, particles)
            self.kept_apart.add(model, guide)
        if new:
            self.newcomers.greet(run)
        return run

    def _at_once(self, particles: int) -> bool:
        return self.vectorize_particles and particles > 1

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)


def check_options(
    particles: int,
    vectorize: bool,
    baseline: BaselineLike | Mapping[str, BaselineLike] | None,
    scale: RunningStd | None,
    bound: Literal["elbo", "iwae"],
    nesting: float,
) -> None:
    """Raise an error if options make no sense."""
    check_constraints({"num_particles": particles}, {"num_particles": COUNT})
    if not isinstance(vectorize, bool):
        raise ValueError(f"vectorize_particles must be True or False, got {vectorize!r}")
    if not isinstance(scale, RunningStd | None):
        raise ValueError(f"scale must be a RunningStd or None, got {scale!r}")
    check_constraints({"max_plate_nesting": nesting}, {"max_plate_nesting": NESTING})
    if bound not in ("elbo", "iwae"):
        raise ValueError(f"bound must be 'elbo' or 'iwae', got {bound!r}")
    if bound == "iwae" and particles < 2:
        raise ValueError("bound='iwae' is the ELBO with one particle; set num_particles=2 or more, or use bound='elbo'")
    if bound == "iwae" and baseline is not None:
        raise ValueError("bound='iwae' has a baseline of its own, the bound without each particle; leave baseline= out")
