"""Assert statements on sampled values."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from zoo.inference.elbo import BlackBoxELBO


def guide():
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))


def model_of(look):
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        look(z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    return model


def asserts(z):
    assert z.isfinite().all()


def asserts_over_lines(z):
    assert (
        z.item() > -100  # a Python number
    ), "far away"


def asserts_of_each(z):
    assert z < 100


def branches(z):
    if z > 100:
        return


def asserts_and_branches(z):
    asserts(z)
    branches(z)


ASSERTS = [asserts, asserts_over_lines, asserts_of_each]


@pytest.mark.parametrize("look", ASSERTS)
def test_assert_gives_no_warning_and_the_loss_of_trace_elbo(look):
    found = []
    for elbo in (BlackBoxELBO(), Trace_ELBO()):
        pyro.set_rng_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append(elbo.loss_and_grads(model_of(look), guide))
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("look", [branches, asserts_and_branches])
def test_branch_gives_a_warning(look):
    with pytest.warns(UserWarning, match="values of 'z', which have a pathwise gradient, determine the control flow"):
        BlackBoxELBO().loss_and_grads(model_of(look), guide)


@pytest.mark.parametrize("look", ASSERTS)
def test_vectorized_error_has_the_location_of_the_assert(look):
    place = f"test_assertions.py:{look.__code__.co_firstlineno + 1}"
    with pytest.raises(ValueError, match=rf"the assert at {place} uses .*; remove it, or set"):
        BlackBoxELBO(3, vectorize_particles=True).loss(model_of(look), guide)


@pytest.mark.parametrize("look", [branches, asserts_and_branches])
def test_vectorized_branch_raises(look):
    with pytest.raises(ValueError, match="values of 'z' determine the control flow"):
        BlackBoxELBO(3, vectorize_particles=True, max_plate_nesting=0).loss(model_of(look), guide)


def test_assert_that_fails_only_for_vectorized_particles_is_reported():
    def asserts_shape(z):
        assert z.ndim == 0

    with pytest.raises(ValueError, match=r"requires model and guide to be .*the vectorized run fails \(AssertionError"):
        BlackBoxELBO(3, vectorize_particles=True).loss(model_of(asserts_shape), guide)
