"""Checks of sites."""

import math
import re
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedBeta, NonreparameterizedNormal
from pyro.infer import Trace_ELBO
from torch.distributions.transforms import AffineTransform

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._validation.sites import check_match, strip_leading_ones


def normal_guide(name="z", kind=NonreparameterizedNormal, **more):
    def guide(*args):
        with pyro.plate("data", 2):
            pyro.sample(name, kind(pyro.param("loc", torch.zeros(2)), 1.0), **more)

    return guide


def normal_model(data=None, prior=None):
    def model(*args):
        with pyro.plate("data", 2):
            z = pyro.sample("z", prior or dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(2) if data is None else data)

    return model


class TestMismatch:
    @pytest.mark.parametrize(
        ("model", "guide", "sentence"),
        [
            (normal_model(), normal_guide("y"), "the guide samples site 'y', which the model does not have"),
            (normal_model(), lambda: None, "the model samples 'z', which the guide does not"),
            (normal_model(), normal_guide("x"), "the guide samples site 'x', which the model observes"),
            (normal_model(), normal_guide(obs=torch.zeros(2)), "the guide observes site 'z'"),
            (
                normal_model(torch.tensor([1.0, torch.nan])),
                normal_guide(),
                r"the data of site 'x' \(Normal\) contain NaN",
            ),
            (normal_model(prior=dist.Gamma(1.0, 1.0)), normal_guide(), "outside the support of the model's site 'z'"),
        ],
    )
    @pytest.mark.parametrize("validation", [True, False])
    def test_mismatch_raises(self, model, guide, sentence, validation):
        torch.manual_seed(0)  # without validation only the first sample is checked
        elbo = BlackBoxELBO(5)
        with pyro.validation_enabled(validation), pytest.raises((ValueError, FloatingPointError), match=sentence):
            elbo.loss_and_grads(model, guide)


class NonreparameterizedUniform(dist.Uniform):
    has_rsample = False


def scaled(kind, high):
    return dist.TransformedDistribution(kind(torch.ones(2), 1.0), [AffineTransform(0.0, high)])


class TestMatch:
    def test_auxiliary_site_is_supported(self, run_once):
        def guide():
            with pyro.plate("data", 2):
                helper = pyro.sample("helper", dist.Bernoulli(0.5), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(helper, 1.0))

        check_match(run_once(normal_model(), guide))

    def test_site_without_is_auxiliary_raises(self, run_once):
        def guide():
            normal_guide()()
            pyro.sample("helper", dist.Bernoulli(0.5))

        with pytest.raises(ValueError, match=r"site 'helper', which the model does not have.*'is_auxiliary': True"):
            check_match(run_once(normal_model(), guide))

    @pytest.mark.parametrize(
        ("prior", "sentence"),
        [
            (dist.Normal(torch.zeros(2), 1.0).to_event(1), r"an event of shape \(\) in the guide and of \(2,\)"),
            (dist.Normal(torch.zeros(3, 2), 1.0), r"a batch of shape \(2,\) in the guide and of \(3, 2\) in the model"),
        ],
        ids=["event", "batch"],
    )
    def test_different_shapes_raise(self, prior, sentence):
        def model():
            pyro.sample("z", prior)

        with pyro.validation_enabled(False), pytest.raises(ValueError, match=sentence):
            BlackBoxELBO().loss_and_grads(model, normal_guide())

    @pytest.mark.parametrize(
        ("pathwise", "scored"),
        [
            (lambda high: dist.Uniform(0.0, high), lambda high: NonreparameterizedUniform(0.0, high)),
            (lambda high: dist.Uniform(0.0, high), lambda high: NonreparameterizedUniform(0.0, high).mask(True)),
            (lambda high: scaled(dist.Beta, high), lambda high: scaled(NonreparameterizedBeta, high)),
        ],
        ids=["bound", "masked", "transform"],
    )
    def test_score_with_parameter_dependent_support_raises(self, pathwise, scored):
        def guide_of(law):
            def guide():
                high = pyro.param("high", torch.tensor(2.0))
                with pyro.plate("data", 2):
                    pyro.sample("z", law(high))

            return guide

        BlackBoxELBO().loss_and_grads(normal_model(), guide_of(pathwise))
        with pytest.raises(ValueError, match=r"the support of site 'z' .* depends on its parameters"):
            BlackBoxELBO().loss_and_grads(normal_model(), guide_of(scored))

    @pytest.mark.parametrize(("shape", "kept"), [((1, 1, 3, 1), (3, 1)), ((2, 1), (2, 1)), ((1,), ()), ((), ())])
    def test_leading_dimensions_of_size_1_are_ignored(self, shape, kept):
        assert strip_leading_ones(torch.Size(shape)) == kept


def test_observed_site_of_the_guide_raises_and_a_factor_has_the_right_gradient():
    """Like the guide of pyro.contrib.cevae; ``-log q`` of the datum is a term of the ELBO."""

    def law():
        return dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.3)))

    def guide():
        pyro.sample("t", law(), obs=torch.tensor(1.0), infer={"is_auxiliary": True})

    with pytest.raises(ValueError, match=r"the guide observes site 't' \(Bernoulli\), .* with pyro.factor"):
        BlackBoxELBO().loss_and_grads(lambda: None, guide)

    def factor():
        pyro.factor("t", law().log_prob(torch.tensor(1.0)), has_rsample=True)

    BlackBoxELBO().loss_and_grads(lambda: None, factor)
    (logit,) = dict(pyro.get_param_store().named_parameters()).values()
    torch.testing.assert_close(logit.grad, torch.sigmoid(-logit.detach()))


class TestShapes:
    """Shapes that are invalid in Pyro, with which the sum over the batch would be wrong."""

    DATA = torch.tensor([0.5, -1.0, 2.0])

    def guide(self):
        pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    def observe(self, batch=(), data=DATA, plate=True, **options):
        def model():
            mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
            with pyro.plate("data", 3) if plate else nullcontext():
                pyro.sample("x", dist.Normal(mean.expand(batch), 1.0), obs=data, **options)

        return model

    @pytest.mark.parametrize("plate", [True, False])
    def test_data_broadcast_by_a_column_of_distributions_raise(self, plate):
        with pytest.raises(
            ValueError, match=r"data of site 'x' \(Normal\) have batch shape \(3,\).*would count 3 times"
        ):
            BlackBoxELBO().loss(self.observe((3, 1), plate=plate), self.guide)

    @pytest.mark.parametrize("options", [{}, {"num_particles": 2, "vectorize_particles": True}])
    def test_data_broadcast_by_a_plate_are_supported(self, options):
        assert math.isfinite(BlackBoxELBO(**options).loss(self.rated, self.guide))

    def rated(self):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("raters", 2, dim=-2), pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=self.DATA)

    def test_batch_dimension_without_plate_is_summed(self):
        pyro.set_rng_seed(0)
        undeclared = BlackBoxELBO().loss(self.observe((3,), plate=False), self.guide)
        pyro.set_rng_seed(0)
        assert undeclared == pytest.approx(Trace_ELBO().loss(self.observe((3,)), self.guide))

    @pytest.mark.parametrize("shape", [(2,), (3, 1), (3, 3)], ids=str)
    def test_obs_mask_of_another_shape_raises(self, shape):
        def guide():
            self.guide()
            with pyro.plate("data", 3):
                pyro.sample("x_unobserved", dist.Normal(0.0, 1.0))

        mask = torch.ones(shape, dtype=torch.bool)
        with pytest.raises(ValueError, match=rf"batch shape \(3,\), but its mask has shape {re.escape(str(shape))}"):
            BlackBoxELBO().loss(self.observe(obs_mask=mask), guide)

    def test_scale_of_another_shape_raises(self):
        with pytest.raises(ValueError, match=r"but its scale has shape \(3, 1\)"):
            BlackBoxELBO().loss(poutine.scale(self.observe(), scale=torch.ones(3, 1)), self.guide)

    def test_plate_of_the_guide_only_gives_a_warning(self):
        def guide():
            self.guide()
            with pyro.plate("more", 3):
                pyro.sample("helper", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})

        elbo = BlackBoxELBO()
        with pytest.warns(UserWarning, match="the guide has plates that the model does not have: 'more'"):
            elbo.loss(self.observe(), guide)
        elbo.loss(self.observe(), guide)  # warns once

    def test_subsampled_plate_of_the_guide_only_raises(self):
        def guide():
            with pyro.plate("more", 10, subsample_size=3):
                pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0))

        with pytest.raises(ValueError, match="the guide subsamples plate 'more', which the model does not have"):
            BlackBoxELBO().loss(lambda: pyro.sample("z", dist.Normal(torch.zeros(3), 1.0)), guide)
