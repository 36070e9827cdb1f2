"""What is refused, and in which words."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedBeta, NonreparameterizedNormal
from torch.distributions.transforms import AffineTransform

from zoo.inference.black_box import BlackBoxELBO
from zoo.inference.black_box.checks import check_match, without_leading_ones


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


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("model", "guide", "sentence"),
        [
            (normal_model(), normal_guide("y"), "the guide samples site 'y', which the model has not"),
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
    def test_is_told_in_a_sentence(self, model, guide, sentence, validation):
        torch.manual_seed(0)  # without validation the first draw alone is looked at
        elbo = BlackBoxELBO(5)
        with pyro.validation_enabled(validation), pytest.raises((ValueError, FloatingPointError), match=sentence):
            elbo.loss_and_grads(model, guide)


class NonreparameterizedUniform(dist.Uniform):
    has_rsample = False


def scaled(kind, high):
    return dist.TransformedDistribution(kind(torch.ones(2), 1.0), [AffineTransform(0.0, high)])


class TestAMatch:
    def test_leaves_what_helps_the_guide_alone(self, recorded):
        def guide():
            with pyro.plate("data", 2):
                helper = pyro.sample("helper", dist.Bernoulli(0.5), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(helper, 1.0))

        check_match(recorded(normal_model(), guide))

    def test_refuses_a_helper_that_is_not_called_one(self, recorded):
        def guide():
            normal_guide()()
            pyro.sample("helper", dist.Bernoulli(0.5))

        with pytest.raises(ValueError, match=r"site 'helper', which the model has not.*'is_auxiliary': True"):
            check_match(recorded(normal_model(), guide))

    @pytest.mark.parametrize(
        ("prior", "sentence"),
        [
            (dist.Normal(torch.zeros(2), 1.0).to_event(1), r"an event of shape \(\) in the guide and of \(2,\)"),
            (dist.Normal(torch.zeros(3, 2), 1.0), r"a batch of shape \(2,\) in the guide and of \(3, 2\) in the model"),
        ],
        ids=["event", "batch"],
    )
    def test_needs_the_same_shapes(self, prior, sentence):
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
    def test_has_a_score_only_where_the_support_stays(self, pathwise, scored):
        def guide_of(law):
            def guide():
                high = pyro.param("high", torch.tensor(2.0))
                with pyro.plate("data", 2):
                    pyro.sample("z", law(high))

            return guide

        BlackBoxELBO().loss_and_grads(normal_model(), guide_of(pathwise))
        with pytest.raises(ValueError, match=r"the support of site 'z' .* moves with its parameters"):
            BlackBoxELBO().loss_and_grads(normal_model(), guide_of(scored))

    @pytest.mark.parametrize(("shape", "kept"), [((1, 1, 3, 1), (3, 1)), ((2, 1), (2, 1)), ((1,), ()), ((), ())])
    def test_sees_no_difference_in_leading_ones(self, shape, kept):
        assert without_leading_ones(torch.Size(shape)) == kept
