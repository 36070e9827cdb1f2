"""The oracle rejects programs that draw random numbers or keep a state, and accepts those that only seem to."""

import random
import threading

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from zoo.gradients.graphs import expected_cost
from zoo.gradients.graphs._repeatability import GeneratorStates
from zoo.gradients.testing import check_unbiased

pytestmark = pytest.mark.usefixtures("without_type_checks")
SENTENCE = "is not deterministic given the values of its samples"
DATA = torch.arange(4.0, dtype=torch.float64)


def total(loader):
    return sum((i + 1) * batch.sum() for i, batch in enumerate(loader))


def program_with(extra):
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", x * extra() + theta)

    return program


def own_sources():
    of_numpy, of_python, of_torch = np.random.default_rng(0), random.Random(0), torch.Generator()
    calls = iter(range(1000))
    return {
        "numpy_generator": lambda: float(of_numpy.normal()),
        "python_generator": of_python.random,
        "torch_generator": lambda: torch.rand((), generator=of_torch),
        "counter": lambda: next(calls),
        "numpy_global": lambda: float(np.random.random()),
        "python_global": random.random,
        "torch_global": lambda: torch.rand(()),
        "shuffling_loader": lambda: total(DataLoader(DATA, batch_size=2, shuffle=True)),
        "loader_of_a_random_sampler": lambda: total(DataLoader(DATA, sampler=RandomSampler(DATA))),
    }


@pytest.fixture
def theta():
    return torch.tensor(0.7, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", own_sources())
def test_randomness_outside_samples_raises_an_error(name, theta):
    with pytest.raises(ValueError, match=SENTENCE):
        expected_cost(program_with(own_sources()[name]), theta)


@pytest.mark.parametrize("name", ["numpy_global", "torch_global"])
def test_global_randomness_in_one_branch_raises_an_error(name, theta):
    draw = own_sources()[name]

    def program(graph, theta):
        bits = graph.sample("bits", Bernoulli(logits=theta.expand(3)))
        graph.cost("f", bits.sum() + (draw() if bits.tolist() == [0, 1, 0] else 0.0))

    with pytest.raises(ValueError, match=SENTENCE):
        expected_cost(program, theta)


REPEATABLE = {
    "loader": lambda: total(DataLoader(DATA, batch_size=2, shuffle=False)),
    "loader_of_batches": lambda: total(DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 2, False))),
    "seeded_generator": lambda: torch.rand((), generator=torch.Generator().manual_seed(1)),
    "seeded_numpy_generator": lambda: float(np.random.default_rng(1).normal()),
}


@pytest.mark.parametrize("extra", REPEATABLE.values(), ids=REPEATABLE)
def test_deterministic_programs_are_accepted(extra, theta):
    (gradient,) = torch.autograd.grad(expected_cost(program_with(extra), theta), theta)
    p = theta.detach().sigmoid()
    torch.testing.assert_close(gradient, extra() * p * (1 - p) + 1, check_dtype=False)


def test_estimators_may_iterate_over_a_loader(theta):
    def estimator(program, theta, *, draw):
        distribution = Bernoulli(logits=theta)
        x = draw("x", distribution)
        return distribution.log_prob(x) * x * total(DataLoader(DATA, batch_size=2)) + theta

    assert check_unbiased(estimator, program_with(REPEATABLE["loader"]), theta)


def test_two_threads_restore_the_loaders_method(theta):
    """The thread that starts first ends first."""
    iterate, first_is_in, second_is_in, results = DataLoader.__iter__, threading.Event(), threading.Event(), []

    def oracle(entered, wait_for):
        def extra():
            entered.set()
            assert wait_for.wait(10)
            return REPEATABLE["loader"]()

        results.append(expected_cost(program_with(extra), theta))

    threads = [
        threading.Thread(target=oracle, args=events)
        for events in ((first_is_in, second_is_in), (second_is_in, first_is_in))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(results, 2 * [expected_cost(program_with(REPEATABLE["loader"]), theta)])
    assert DataLoader.__iter__ is iterate


def test_loaders_of_other_threads_draw_their_seeds(theta):
    def extra():
        def in_another_thread():
            torch.manual_seed(0)
            total(DataLoader(DATA))
            moved.append(torch.get_rng_state())

        moved, before = [], torch.get_rng_state()
        thread = threading.Thread(target=in_another_thread)
        thread.start()
        thread.join()
        torch.set_rng_state(before)
        undrawn = torch.Generator().manual_seed(0).get_state()
        assert not torch.equal(moved[0], undrawn)
        return 1.0

    assert expected_cost(program_with(extra), theta) > 0


def test_error_mentions_draws_of_other_threads(theta):
    def extra():
        thread = threading.Thread(target=lambda: torch.rand(()))
        thread.start()
        thread.join()
        return 1.0

    with pytest.raises(
        ValueError, match=f"{SENTENCE}.* let no other thread draw from the global random number generators"
    ):
        expected_cost(program_with(extra), theta)


def test_draws_from_each_global_generator_are_detected():
    for draw in (lambda: torch.rand(()), lambda: np.random.random()):
        before = GeneratorStates()
        assert not before.have_advanced()
        draw()
        assert before.have_advanced()


def test_draws_from_another_numpy_bit_generator_are_detected():
    usual = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(0))
    try:
        before = GeneratorStates()
        assert not before.have_advanced()
        np.random.random()
        assert before.have_advanced()
    finally:
        np.random.set_bit_generator(usual)
