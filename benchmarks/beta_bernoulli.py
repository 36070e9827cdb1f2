"""Steps until convergence in part III of Pyro's SVI tutorial: ``python benchmarks/beta_bernoulli.py``.

The guide has no pathwise gradient. Adam with a learning rate of 5e-4 starts at Beta(15, 15) and has converged when both
parameters lie within 0.8 of the posterior, Beta(16, 14). All estimators have the same seeds.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.testing.fakes import NonreparameterizedBeta
from pyro.infer import ELBO, SVI, TraceGraph_ELBO
from torch.distributions import constraints

from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.inference.elbo import BlackBoxELBO
from zoo.training import run_environment, write_json

FLIPS = torch.tensor([1.0] * 6 + [0.0] * 4)
POSTERIOR = {"alpha": 16.0, "beta": 14.0}
TOLERANCE = 0.8


@dataclass
class Arguments:
    """Arguments of this script.

    Args:
        seeds: number of seeds, counted from 0.
        limit: largest number of steps.
        record: file for the numbers; null for none.
    """

    seeds: int = 20
    limit: int = 10_000
    record: str | None = None


def model() -> None:
    """Flip a coin of unknown fairness."""
    fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
    with pyro.plate("flips", len(FLIPS)):
        pyro.sample("flip", dist.Bernoulli(fairness), obs=FLIPS)


def guide(decaying_average: bool) -> None:
    """Sample the fairness from its variational distribution."""
    start = torch.tensor(15.0)
    alpha, beta = (pyro.param(name, start, constraint=constraints.positive) for name in POSTERIOR)
    infer = {"baseline": {"use_decaying_avg_baseline": decaying_average}}
    pyro.sample("fairness", NonreparameterizedBeta(alpha, beta), infer=infer)


def steps_until_convergence(make_elbo: Callable[[], ELBO], decaying_average: bool, seed: int, limit: int) -> int:
    """Return the number of steps until convergence, at most ``limit``."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    optimizer = pyro.optim.Adam({"lr": 5e-4, "betas": (0.93, 0.999)})
    svi = SVI(model, partial(guide, decaying_average), optimizer, make_elbo())
    for step in range(1, limit):
        svi.step()
        if all(abs(pyro.param(name).item() - value) < TOLERANCE for name, value in POSTERIOR.items()):
            return step
    return limit


def main() -> None:
    """Measure and print the table."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(Arguments, str(__doc__)))
            return
        arguments = parse_arguments(Arguments, sys.argv[1:])
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")  # of a site outside all plates, which is intended here
        estimators = {
            "BlackBoxELBO, 2 particles": (partial(BlackBoxELBO, 2), False),
            "BlackBoxELBO, 2 particles, vectorized": (partial(BlackBoxELBO, 2, vectorize_particles=True), False),
            "BlackBoxELBO, 1 particle": (partial(BlackBoxELBO, baseline="moving_average"), False),
            "TraceGraph_ELBO, decaying average, 2 particles": (partial(TraceGraph_ELBO, 2), True),
            "TraceGraph_ELBO, decaying average, 1 particle": (TraceGraph_ELBO, True),
            "TraceGraph_ELBO, no baseline, 1 particle": (TraceGraph_ELBO, False),
        }
        found: dict[str, list[int]] = {}
        print("\n| estimator | median steps | fewest | most |\n| --- | --- | --- | --- |")
        for name, (make_elbo, average) in estimators.items():
            steps = [
                steps_until_convergence(make_elbo, average, seed, arguments.limit) for seed in range(arguments.seeds)
            ]
            print(f"| {name} | {median(steps):.0f} | {min(steps)} | {max(steps)} |", flush=True)
            found[name] = steps
        if arguments.record is not None:
            record = {"command": " ".join(["python", *sys.argv]), **run_environment(), "seeds": arguments.seeds}
            write_json(Path(arguments.record), record | {"steps": found})


if __name__ == "__main__":
    main()
