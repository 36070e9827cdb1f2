"""Traces of model and guide."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.distributions.transforms import Planar
from torch.distributions.transforms import AffineTransform

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._sites import Plate
from zoo.inference.elbo._tracing import ModelGuideCall, trace_model_and_guide, trace_vectorized

X = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)


def model(x):
    top = pyro.sample("top", dist.Bernoulli(0.5))
    with pyro.plate("data", len(x)), poutine.scale(scale=2.0):
        z = pyro.sample("z", dist.Bernoulli(logits=top - 1))
        pyro.sample("x", dist.Bernoulli(logits=z), obs=x)


def guide(x):
    pyro.sample("top", dist.Bernoulli(0.3))
    with pyro.plate("data", len(x)), poutine.scale(scale=2.0):
        pyro.sample("z", dist.Bernoulli(logits=x))


def vectorized(model, guide, *args):
    return trace_vectorized(ModelGuideCall(model, guide, args), 4, 1, {})


class TestRun:
    def test_guide_and_model_have_the_values_sampled_by_the_guide(self, run_once):
        run = run_once(model, guide, X)
        assert list(run.guide) == ["top", "z"]
        assert list(run.model) == ["top", "z", "x"]
        assert all(torch.equal(run.model[name].value, run.guide[name].value) for name in run.guide)

    def test_log_probabilities_equal_those_of_pyro_and_scores_are_unscaled(self, run_once):
        run = run_once(model, guide, X)
        values = {name: site.value for name, site in run.guide.items()}
        trace = poutine.trace(poutine.condition(model, values)).get_trace(X)
        trace.compute_log_prob()
        for name, site in run.model.items():
            torch.testing.assert_close(site.density.log_prob, trace.nodes[name]["log_prob"])
        z = run.guide["z"]
        torch.testing.assert_close(z.density.log_prob, 2 * z.density.score)

    def test_parents_are_those_of_the_log_probability(self, run_once):
        run = run_once(model, guide, X)
        assert run.guide["z"].parents == {"z"}
        assert run.model["top"].parents == {"top"}
        assert run.model["z"].parents == {"top", "z"}
        assert run.model["x"].parents == {"z"}

    def test_plates_are_recorded(self, run_once):
        run = run_once(model, guide, X)
        assert run.guide["top"].plates == frozenset()
        assert run.model["x"].plates == {Plate("data", -1, 3)}

    def test_vectorized_particles_are_the_leftmost_plate(self):
        run = vectorized(model, guide, X)
        assert run.guide["top"].value.shape == (4, 1)
        assert run.model["x"].density.log_prob.shape == (4, 3)

    def test_cache_of_a_shared_transform_is_not_used_by_the_model(self, run_once):
        loc = torch.tensor(0.3, requires_grad=True)
        shared = AffineTransform(loc, 2.0, cache_size=1)

        def flow():
            pyro.sample("z", dist.TransformedDistribution(NonreparameterizedNormal(0.0, 1.0), [shared]))

        site = run_once(flow, flow).model["z"]
        (gradient,) = torch.autograd.grad(site.density.log_prob, loc)
        torch.testing.assert_close(gradient, (site.value - loc) / 4)

    def test_transform_without_inverse_raises(self, run_once):
        def flow():
            base = NonreparameterizedNormal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [Planar(2)]))

        with pytest.raises(ValueError, match=r"site 'z' \(TransformedDistribution\) has no log-probability"):
            run_once(flow, flow)

    def test_value_that_is_no_tensor_raises(self, run_once):
        def observing():
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=1.5)

        with pytest.raises(ValueError, match=r"site 'x' \(Normal\) must have a tensor as value, got 1\.5"):
            run_once(observing, lambda: None)

    def test_control_flow_inside_a_density_is_tracked(self, run_once, programs):
        model, guide, *_ = programs["python"]()
        run = run_once(model, guide, torch.zeros(3))
        assert run.model["x"].control_dependencies == {"z"}
        assert run.dependencies()[1][1]["z"] == frozenset()

    def test_branch_affects_later_sites(self, run_once):
        def branching():
            before = pyro.sample("before", dist.Bernoulli(0.5))
            pyro.sample("a", dist.Bernoulli(0.5))
            pyro.sample("b", dist.Bernoulli(0.5 if before else 0.25))

        run = run_once(branching, branching)
        assert run.control_dependencies == {"before"}
        assert run.guide["a"].control_dependencies == frozenset()
        assert run.guide["b"].parents == {"before", "b"}

    def test_value_cached_by_a_shared_distribution_is_tracked(self, run_once):
        """A Bernoulli with logits computes its probabilities lazily, and caches them."""

        def sharing():
            first = pyro.sample("first", dist.Bernoulli(0.5))
            shared = dist.Bernoulli(logits=first)
            pyro.sample("second", shared)
            pyro.sample("third", dist.Bernoulli(shared.probs))

        assert run_once(sharing, sharing).guide["third"].parents == {"first", "third"}


class TestSubsamples:
    def draw(self, size=10, taken=3):
        def program():
            with pyro.plate("data", size, subsample_size=taken) as index:
                pyro.sample("z", dist.Normal(index.double(), 1.0))

        return program

    def indices(self, run):
        return run.guide["z"].distribution.loc, run.model["z"].distribution.loc

    def test_subsample_is_the_same_in_guide_and_model(self, run_once):
        of_guide, of_model = self.indices(run_once(self.draw(), self.draw()))
        assert torch.equal(of_guide, of_model)

    def test_subsample_is_the_same_in_all_particles_of_a_step(self):
        drawn = {}
        runs = [trace_model_and_guide(ModelGuideCall(self.draw(), self.draw()), drawn) for _ in range(5)]
        assert all(torch.equal(self.indices(run)[0], self.indices(runs[0])[0]) for run in runs)

    def test_subsample_is_drawn_again_for_another_size(self):
        drawn = {}
        before = trace_model_and_guide(
            ModelGuideCall(self.draw(size=1000, taken=5), self.draw(size=1000, taken=5)), drawn
        )
        after = trace_model_and_guide(ModelGuideCall(self.draw(size=10, taken=3), self.draw(size=10, taken=3)), drawn)
        assert [len(self.indices(run)[0]) for run in (before, after)] == [5, 3]
        assert max(self.indices(after)[0]) < 10


class TestBadInput:
    def test_plate_around_both_programs_raises(self, run_once):
        with pyro.plate("outer", 3), pytest.raises(ValueError, match="the plate 'outer' is open around the ELBO"):
            run_once(model, guide, X)

    def test_duplicate_name_raises(self, run_once):
        def twice():
            pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("z", dist.Bernoulli(0.5))

        with pytest.raises(ValueError, match="site 'z' is sampled twice"):
            run_once(twice, twice)

    def test_log_probability_that_cannot_be_computed_raises(self, run_once):
        def two():
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))

        def three():
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))

        with pytest.raises(ValueError, match=r"site 'z' \(Normal\) has no log-probability"):
            run_once(two, three)

    @pytest.mark.parametrize("nesting", [1, float("inf")])
    def test_control_flow_with_vectorized_particles_raises(self, nesting):
        def model():
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(1.0 if z.sum() > 0 else 0.0, 1.0), obs=torch.tensor(1.0))

        def guide():
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("p", torch.tensor(0.0))))

        elbo = BlackBoxELBO(2, vectorize_particles=True, max_plate_nesting=nesting)
        with pytest.raises(ValueError, match=r"'z' determine the control flow.*vectorize_particles=False"):
            elbo.loss_and_grads(model, guide)
