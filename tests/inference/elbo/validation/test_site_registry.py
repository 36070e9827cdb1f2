"""Reports and warnings about new sites."""

import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal

from zoo.inference.elbo import BlackBoxELBO


def bit(name, logits=0.0):
    return pyro.sample(name, dist.Bernoulli(logits=torch.as_tensor(logits)))


def test_gradient_of_each_site_is_logged_once(caplog):
    def program():
        with pyro.plate("data", 3):
            bit("z")
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    elbo = BlackBoxELBO()
    with caplog.at_level(logging.INFO, logger="zoo.inference.elbo"):
        elbo.loss_and_grads(program, program)
        elbo.loss_and_grads(program, program)
    (line,) = caplog.messages
    assert "site 'z' (Bernoulli) score function" in line
    assert "site 'w' (Normal) pathwise" in line


def test_later_site_is_logged(caplog):
    def program(deeper):
        with pyro.plate("data", 3):
            bit("z")
            if deeper:
                bit("y")

    elbo = BlackBoxELBO()
    with caplog.at_level(logging.INFO, logger="zoo.inference.elbo"):
        elbo.loss_and_grads(program, program, False)
        elbo.loss_and_grads(program, program, True)
    first, second = caplog.messages
    assert "'z'" in first
    assert "'z'" not in second
    assert "'y'" in second


@pytest.mark.parametrize("vectorized", [False, True], ids=["one by one", "at once"])
def test_site_outside_every_plate_gives_one_warning(recwarn, vectorized):
    """The terms are its own in guide and model, and ten of the data."""

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.ones(10))

    def guide():
        pyro.sample("mean", NonreparameterizedNormal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    elbo = BlackBoxELBO(3, vectorize_particles=vectorized)
    with pytest.warns(UserWarning, match=r"site 'mean'.*all 12 log-probabilities"):
        elbo.loss_and_grads(model, guide)
    elbo.loss_and_grads(model, guide)
    assert not recwarn.list


def test_pathwise_control_dependency_gives_a_warning():
    def model():
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(1.0 if w > 0 else -1.0, 1.0), obs=torch.tensor(0.5))

    def guide():
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.warns(UserWarning, match="'w'.*determine the control flow"):
        BlackBoxELBO().loss_and_grads(model, guide)


def test_straight_through_gradient_gives_a_warning(recwarn):
    def program(kind):
        with pyro.plate("data", 3):
            pyro.sample("z", kind(torch.ones(3, 2)))

    with pytest.warns(UserWarning, match=r"'z' \(OneHotCategoricalStraightThrough\).*biased.*NonReparameterized"):
        BlackBoxELBO().loss_and_grads(program, program, dist.OneHotCategoricalStraightThrough)
    BlackBoxELBO().loss_and_grads(program, program, dist.OneHotCategorical)
    BlackBoxELBO().loss_and_grads(
        program, program, lambda p: dist.OneHotCategoricalStraightThrough(p).has_rsample_(False)
    )
    assert not recwarn.list


def test_changed_site_is_checked_again():
    def program(size):
        def run(*_):
            with pyro.plate("data", 2):
                pyro.sample("z", dist.Normal(torch.zeros(2, size), 1.0).to_event(1))

        return run

    elbo = BlackBoxELBO()
    elbo.loss_and_grads(program(3), program(3))
    elbo.loss_and_grads(program(4), program(4))
    with pytest.raises(ValueError, match=r"an event of shape \(1,\) in the guide and of \(4,\) in the model"):
        elbo.loss_and_grads(program(4), program(1))


def test_sites_of_a_chain_share_one_warning():
    def guide():
        for t in range(9):
            pyro.sample(f"z_{t}", dist.Bernoulli(logits=pyro.param(f"logits_{t}", torch.tensor(0.0))))

    def model():
        for t in range(9):
            z = pyro.sample(f"z_{t}", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    elbo = BlackBoxELBO()
    with pytest.warns(UserWarning, match="outside every plate") as seen:
        elbo.loss_and_grads(model, guide)
    elbo.loss_and_grads(model, guide)  # without a warning, which would be an error here
    (warning,) = seen
    message = str(warning.message)
    assert message.startswith("site 'z_0' (Bernoulli) has no pathwise gradient")
    assert message.endswith("The same applies to 'z_1', 'z_2', 'z_3', 'z_4', 'z_5' and 3 more")
