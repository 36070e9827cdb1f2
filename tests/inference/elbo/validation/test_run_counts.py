"""An option enabled during training is checked like one enabled from the start."""

import copy
import enum
import functools
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._validation.programs import MAX_SIGNATURES, RunCounts

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


class Kind(enum.Enum):
    A = 1
    B = 2


@dataclass
class Options:
    fast: bool


def model(option, mixes=False):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z.mean() if mixes else z, 1.0), obs=torch.tensor(1.0))


def plain_guide(option, mixes=False):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.7)), 1.0))


def guide_without_gradients(option):
    with torch.set_grad_enabled(not option):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.7)) * 1, 1.0))


def guide_with_a_flag(option):
    distribution = dist.LogNormal(pyro.param("loc", torch.tensor(0.7)), 1.0)
    if option:
        distribution.has_rsample_(False)
    pyro.sample("z", distribution.expand_by([1]).to_event(1).expand([]) if option else distribution.expand([]))


def model_of_a_vector(option):
    z = pyro.sample("z", dist.LogNormal(0.0, 1.0).expand([1]).to_event(1) if option else dist.LogNormal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z.sum(-1) if option else z, 1.0), obs=torch.tensor(1.0))


PROGRAMS = {
    "mixing": (
        True,
        lambda k: model(k, mixes=k),
        plain_guide,
        "requires model and guide to be independent",
    ),
    "no gradients": (False, model, guide_without_gradients, "is created while gradients are disabled"),
    "lost flag": (False, model_of_a_vector, guide_with_a_flag, "was lost when a plate or expand"),
}


@pytest.mark.parametrize(("vectorize", "model", "guide", "sentence"), PROGRAMS.values(), ids=PROGRAMS)
def test_option_enabled_later_is_checked_until_it_passes(vectorize, model, guide, sentence):
    elbo = BlackBoxELBO(num_particles=3, vectorize_particles=vectorize, max_plate_nesting=0)
    for _ in range(4):
        elbo.loss_and_grads(model, guide, False)
    for _ in range(3):
        with pytest.raises(ValueError, match=sentence):
            elbo.loss_and_grads(model, guide, True)
    elbo.loss_and_grads(model, guide, False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, False),
        (None, True),
        ("a", "b"),
        (Kind.A, Kind.B),
        (np.bool_(True), np.bool_(False)),
        ([1.0, {"deep": (True,)}], [1.0, {"deep": (False,)}]),
        ({"a": 1}, {"b": 1}),
        (Options(True), Options(False)),
        (functools.partial(print, sep="a"), functools.partial(print, sep="b")),
        (torch.ones(1), 1.0),
        (nn.Linear(1, 1), nn.Linear(1, 1).eval()),
        (lambda: 1, lambda: 2),
        (dist.Normal, dist.Cauchy),
        (set(), {True}),
    ],
)
def test_signatures_of_different_options_differ(one, other):
    passed = RunCounts()
    passed.add(passed.signature(one))
    assert (passed[passed.signature(one)], passed[passed.signature(other)]) == (1, 0)
    assert copy.deepcopy(passed)[passed.signature(one)] == 0


def test_signatures_of_different_data_are_equal():
    passed, endless = RunCounts(), []
    endless.append(endless)
    for x in (torch.ones(2), 3, 2.5, [1.0] * 100, np.ones(2), endless, lambda y=[0]: y):
        passed.add(passed.signature(x, "mode"))
        assert passed[passed.signature(copy.copy(x), "mode")] == 1
    assert passed.signature(3) == passed.signature(4)


def test_options_are_counted_beside_any_number_of_strings():
    passed = RunCounts()
    for i in range(5 * MAX_SIGNATURES):
        passed.add(passed.signature(f"name {i}", False))
    assert passed[passed.signature("another", False)] > 0
    assert passed[passed.signature("another", True)] == 0
    for i in range(5 * MAX_SIGNATURES):
        passed.add(passed.signature([None] * (i % 30), [True] * (i // 30)))
    assert len(passed._counts) <= 2 * MAX_SIGNATURES + 1
