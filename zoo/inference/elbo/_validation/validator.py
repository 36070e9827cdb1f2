from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._sites import Run
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import ModelGuideCall
from zoo.inference.elbo._validation.grad_mode import check_grad_mode
from zoo.inference.elbo._validation.programs import RunCounts, VerifiedPrograms
from zoo.inference.elbo._validation.sites import SiteRegistry, check_finite, check_gradients, check_match
from zoo.inference.elbo._validation.vectorization import VECTORIZATION_ERRORS, check_particles_independent


class Validator:
    """All checks of a ``BlackBoxELBO``.

    Cheap checks run in each step. Checks that run the program again, or examine the autograd graph, run for new sites
    and at runs 1, 2, 4, 8, … of each kind of arguments: a term that is wrong can start with weight zero (e.g. a
    zero-initialized layer) and appear only during training. If not enabled, there are no checks, and Pyro's own
    validation is disabled during a trace.
    """

    def __init__(self, enabled: bool):
        self.enabled = enabled
        self.registry = SiteRegistry()
        self.verified = VerifiedPrograms()
        self.counts = RunCounts()
        self.step = 0
        """Number of training steps, for error messages."""

    def distribution_validation(self) -> AbstractContextManager[None]:
        """Return a context that disables Pyro's own validation if there are no checks."""
        return nullcontext() if self.enabled else pyro.validation_enabled(False)

    def checked_runs(
        self,
        trace_runs: Callable[[bool], list[Run]],
        call: ModelGuideCall,
        num_particles: int,
        max_plate_nesting: int | None,
        subsamples: Subsamples,
    ) -> list[Run]:
        """Return the runs of ``trace_runs(check_rsample_flags)``; raise an error if the gradient would be wrong.

        ``max_plate_nesting`` is None for one run per particle. An error of a vectorized run is replaced by its cause.
        """
        if not self.enabled:
            with self.distribution_validation():
                return trace_runs(False)
        signature = self.counts.signature(*call)
        expensive_checks_due = (self.counts[signature] + 1).bit_count() == 1
        try:
            runs = trace_runs(expensive_checks_due)
        except VECTORIZATION_ERRORS:
            if max_plate_nesting is not None:
                check_particles_independent(max_plate_nesting, call, subsamples, num_particles)
            raise
        for run in runs:
            check_match(run)
            is_new = self.registry.validate(run)
            if is_new or expensive_checks_due:
                check_grad_mode(run, call, subsamples, vectorized=max_plate_nesting is not None)
            pair = call.model, call.guide
            if max_plate_nesting is not None and (is_new or expensive_checks_due or pair not in self.verified):
                check_particles_independent(max_plate_nesting, call, subsamples, num_particles)
                self.verified.add(*pair)
            if is_new or run.control_dependencies:
                self.registry.register(run)
        if torch.jit.is_tracing() and (names := frozenset().union(*(run.control_dependencies for run in runs))):
            raise ValueError(
                f"the values of {quote_names(names)} determine the control flow (if, item(), an index), and "
                "torch.jit.trace would record the branch of this run for all others; call the ELBO "
                "outside of torch.jit.trace"
            )
        self.counts.add(signature)
        return runs

    def check_finite(self, bound: Tensor, loss: Tensor, runs: Sequence[Run]) -> None:
        if self.enabled:
            check_finite(bound.item(), loss.item(), runs, self.step)

    def check_gradients(self, params: Any, retrace: Callable[[], Sequence[Run]]) -> None:
        if self.enabled:
            parameters = {name: node["value"].unconstrained() for name, node in params.trace.nodes.items()}
            check_gradients(parameters, retrace, self.step)
