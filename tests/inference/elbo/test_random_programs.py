"""Random programs: the expected gradient equals that of the ELBO.

Of the first twenty with branches, ten detect an ignored branch, and six an ignored plate.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from random import Random
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from zoo.inference.elbo import BlackBoxELBO, _sites

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")

DIMS = {"columns": -1, "rows": -2}
SIZE, PARAMETERS = 2, 8
QUICK = (3,)
SEEDS = [pytest.param(seed, marks=() if seed in QUICK else pytest.mark.slow) for seed in range(60)]

WAYS = {
    "product": lambda z, a, b: a * z,
    "choice": lambda z, a, b: torch.where(z > 0.5, a, b),
    "index": lambda z, a, b: torch.stack([a, b])[z.long() % 2],
}
BRANCH = {"branch": lambda z, a, b: a if (z > 0.5).any() else b}
"""By which a value may enter a logit; ``a`` and ``b`` are parameters."""


class Program(NamedTuple):
    """Model and guide with one vector of parameters as argument."""

    model: Callable[[Tensor], None]
    guide: Callable[[Tensor], None]
    parameters: int = PARAMETERS


class Term(NamedTuple):
    """Effect of one value on a logit."""

    source: str
    way: str
    parameter: int


class Node(NamedTuple):
    """A binary variable, possibly in plates."""

    name: str
    plates: tuple[str, ...]
    terms: Sequence[Term]
    parameter: int
    scale: float
    masked: bool


def nodes(random: Random, sites: Mapping[str, tuple[str, ...]], ways: Sequence[str]) -> list[Node]:
    """Return sites in a random order; earlier ones may influence later ones."""
    found: list[Node] = []
    for name in random.sample(sorted(sites), len(sites)):
        before = [node.name for node in found if node.name.startswith("z")]
        sources = random.sample(before, min(len(before), random.choice([0, 1, 1, 2])))
        terms = [Term(source, random.choice(ways), random.randrange(PARAMETERS)) for source in sources]
        weighed = random.choice([1.0, 1.0, 0.4])
        found.append(Node(name, sites[name], terms, random.randrange(PARAMETERS), weighed, random.random() < 0.2))
    return found


def logit(node: Node, values: Mapping[str, Tensor], plates: Mapping[str, tuple[str, ...]], theta: Tensor) -> Tensor:
    """Sum the effects of earlier values on a node, over elements of other plates."""
    total = theta[node.parameter]
    for source, way, i in node.terms:
        outside = [DIMS[plate] for plate in plates[source] if plate not in node.plates]
        z = values[source].sum(outside, keepdim=True) if outside else values[source]
        total = total + (WAYS | BRANCH)[way](z, theta[i], theta[i - 1])
    return total


def runner(drawn: Sequence[Node], plates: Mapping[str, tuple[str, ...]]) -> Callable[[Tensor], None]:
    """Return the program of some nodes."""

    def run(theta):
        values: dict[str, Tensor] = {}
        around = {name: pyro.plate(name, SIZE, dim=dim) for name, dim in DIMS.items()}
        for node in drawn:
            with ExitStack() as stack:
                for plate in node.plates:
                    stack.enter_context(around[plate])
                stack.enter_context(poutine.scale(scale=node.scale))
                if node.masked and "columns" in node.plates:
                    stack.enter_context(poutine.mask(mask=torch.tensor([True, False])))
                law = dist.Bernoulli(logits=logit(node, values, plates, theta))
                if node.name.startswith("x"):
                    sizes = [SIZE if plate in node.plates else 1 for plate in ("rows", "columns")]
                    pyro.sample(node.name, law, obs=torch.ones(sizes))
                else:
                    values[node.name] = pyro.sample(node.name, law)

    return run


def made(seed: int, ways: Sequence[str], bits: int) -> Program:
    """Return a program with a few binary variables."""
    random = Random(seed)
    choices = [(), (), ("columns",), ("rows",), ("columns", "rows")]
    plates: dict[str, tuple[str, ...]] = {}
    while (left := bits - sum(SIZE ** len(each) for each in plates.values())) > 0:
        plates[f"z{len(plates)}"] = random.choice([each for each in choices if SIZE ** len(each) <= left])
    data = {f"x{i}": random.choice(choices) for i in range(random.choice([1, 2, 3]))}
    guide, model = nodes(random, plates, ways), nodes(random, plates | data, ways)
    like = {node.name: node for node in model}
    guide = [node._replace(scale=like[node.name].scale, masked=like[node.name].masked) for node in guide]
    return Program(runner(model, plates), runner(guide, plates))


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_is_unbiased_with_branches_and_one_particle(seed, bias):
    program = made(seed, [*WAYS, *BRANCH], bits=5)
    assert bias(BlackBoxELBO(baseline="moving_average"), program) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("vectorized", [False, True])
def test_gradient_is_unbiased_without_branches_and_two_particles(seed, vectorized, bias):
    program = made(seed, [*WAYS], bits=3)
    baseline = Random(seed).choice([None, "none", "optimal"])
    assert bias(BlackBoxELBO(2, vectorized, baseline), program) < 1e-9


def overlook_branches(node, known):
    return propagate(node._replace(parents=node.parents - (node.control_dependencies - {node.name})), known)


def overlook_ways_out(node, known):
    """If there are several paths between two sites, keep the plates of any."""
    found = {}
    for parent in node.parents:
        along = _sites.NO_PLATES if parent in node.control_dependencies else node.plates
        for source, plates in known.get(parent, {node.name: node.plates}).items():
            found[source] = found.get(source, plates) | (plates & along)
    return found


propagate = _sites.propagate


@pytest.mark.parametrize("mistake", [overlook_branches, overlook_ways_out])
def test_planted_bug_is_detected(mistake, bias, monkeypatch):
    monkeypatch.setattr(_sites, "propagate", mistake)
    _sites.dependencies.cache_clear()
    found = bias(BlackBoxELBO(baseline="moving_average"), made(3, [*WAYS, *BRANCH], bits=5))
    _sites.dependencies.cache_clear()
    assert found > 1e-3
