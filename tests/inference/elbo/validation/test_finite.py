"""Values that are not finite raise errors with site and step."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from zoo.gradients import Baseline
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._validation.sites import check_finite, diagnose_gradient

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


def point(name="w", **more):
    """A guide with a point mass."""

    def guide(*args):
        pyro.sample("w", dist.Delta(pyro.param(name, torch.tensor(0.0), **more)))

    return guide


def around(spread):
    """A model whose likelihood has a scale that depends on the latent variable."""

    def model(data):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, spread(w)), obs=data)

    return model


def rooted(w):
    return 1 + w.square().sqrt()


def bit(*args):
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(2))))


class TestBound:
    def test_nonfinite_bound_raises_with_site_and_step(self):
        elbo, data = BlackBoxELBO(), torch.tensor(1.0)
        elbo.loss_and_grads(around(torch.exp), point(), data)
        data.fill_(torch.inf)
        sentence = r"the ELBO is .*inf at step 2: the log-probability of site 'x' \(Normal\) in the model"
        with pyro.validation_enabled(False), pytest.raises(FloatingPointError, match=sentence):
            elbo.loss_and_grads(around(torch.exp), point(), data)

    def test_nonfinite_parameter_is_named(self, run_once):
        def program():
            pyro.sample("z", dist.Normal(torch.tensor(torch.inf), 1.0))

        sentence = r"the ELBO is nan at step 7: .*'z' \(Normal\) in the guide.*its loc"
        with pyro.validation_enabled(False), pytest.raises(FloatingPointError, match=sentence):
            check_finite(torch.nan, 0.0, [run_once(program, program)], step=7)

    def test_sum_of_finite_terms_is_diagnosed(self, run_once):
        with pytest.raises(FloatingPointError, match="the sum of its terms is too large"):
            check_finite(torch.inf, torch.inf, [run_once(bit, bit)], step=1)

    def test_finite_bound_raises_nothing(self):
        check_finite(-3.0, 2.0, [], step=1)


class TestLoss:
    def test_nonfinite_baseline_is_diagnosed(self):
        class Spoilt(Baseline):
            def predict(self, signal, context, mask):
                return signal.new_full((), torch.nan)

        with pytest.raises(
            FloatingPointError, match=r"the loss that has .* is nan at step 1: a baseline is not finite"
        ):
            BlackBoxELBO(baseline=Spoilt()).loss_and_grads(bit, bit)


class TestGradient:
    def test_nonfinite_gradient_raises_with_parameter_site_and_step(self):
        elbo = BlackBoxELBO()
        elbo.loss_and_grads(around(torch.exp), point(), torch.tensor(1.0))
        sentence = (
            r"gradient of 'w' is not finite at step 2, though the ELBO is finite: "
            r"the gradient of the log-probability of site 'x' \(Normal\) .*a root"
        )
        with pytest.raises(FloatingPointError, match=sentence):
            elbo.loss_and_grads(around(rooted), point(), torch.tensor(1.0))

    def test_missing_data_under_a_mask_are_diagnosed(self):
        def model():
            mean = pyro.param("mean", torch.tensor(0.0))
            with pyro.plate("data", 2), poutine.mask(mask=torch.tensor([True, False])):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.tensor([1.0, torch.nan]))

        sentence = "gradient of 'mean' is not finite at step 1.*the data of site 'x' .*contain NaN"
        with pyro.validation_enabled(False), pytest.raises(FloatingPointError, match=sentence):
            BlackBoxELBO().loss_and_grads(model, lambda: None)

    def test_finite_gradients_have_no_nonfinite_site(self, run_once):
        run = run_once(bit, bit)
        assert diagnose_gradient([pyro.param("logits").unconstrained()], [run]) == ""
