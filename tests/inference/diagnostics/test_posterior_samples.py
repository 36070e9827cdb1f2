import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from zoo.inference.diagnostics import PosteriorSamples, elbo_estimate, sample_posterior
from zoo.inference.elbo._validation import vectorization

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
Z = 4.9  # of a false alarm of 1e-6


def layered():
    """A latent variable above a plate, one in it, and a vector."""
    top = pyro.sample("top", dist.Gamma(2.0, 1.0))
    pyro.sample("vector", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
        pyro.sample("x", dist.Normal(z * top, 1.0), obs=X)


def layered_guide():
    pyro.sample("top", dist.Gamma(3.0, 2.0))
    pyro.sample("vector", dist.Normal(torch.ones(2), 0.5).to_event(1))
    with pyro.plate("data", 3):
        pyro.sample("z", dist.Bernoulli(torch.tensor([0.2, 0.5, 0.8])))


def branching():
    if pyro.sample("coin", dist.Bernoulli(torch.tensor(0.5))):
        mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0), 1.0))
    else:
        mean = torch.tensor(3.0)
    pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.tensor(1.0))


def branching_guide():
    if pyro.sample("coin", dist.Bernoulli(torch.tensor(0.4))):
        pyro.sample("mean", dist.Normal(torch.tensor(0.5), 1.0))


def mixing():
    """Says of a draw something else if there are others: it takes their mean."""
    z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("x", dist.Normal(z - z.mean(), 1.0), obs=torch.tensor(1.0))


def one_normal():
    pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))


class TestTheDensities:
    def test_log_densities_equal_pyros_for_each_sample(self):
        found = sample_posterior(layered, layered_guide, num_samples=5, log_likelihood=True)
        for k in range(5):
            values = {name: x[k] for name, x in found.sites.items()}
            for program, log_density in ((layered, found.log_p), (layered_guide, found.log_q)):
                trace = poutine.trace(poutine.condition(program, values)).get_trace()
                assert trace.log_prob_sum().item() == pytest.approx(log_density[k].item(), abs=1e-10)

    def test_weights_equal_log_evidence_if_guide_is_posterior(self, normals):
        right = normals.with_posterior()
        found = sample_posterior(right.model, right.guide, num_samples=50).log_weights
        torch.testing.assert_close(found, torch.full((50,), normals.log_evidence))

    def test_weights_vary_if_guide_is_not_posterior(self, normals):
        assert sample_posterior(normals.model, normals.guide, num_samples=50).log_weights.std() > 0.1

    def test_log_likelihood_of_each_datum_is_kept_on_request(self):
        found = sample_posterior(layered, layered_guide, num_samples=7, log_likelihood=True)
        mean = found.sites["z"] * found.sites["top"].unsqueeze(-1)
        torch.testing.assert_close(found.log_likelihood["x"], dist.Normal(mean, 1.0).log_prob(X))
        assert sample_posterior(layered, layered_guide, num_samples=7).log_likelihood == {}

    def test_log_likelihood_is_unscaled(self):
        with poutine.scale(scale=0.1):
            found = sample_posterior(layered, layered_guide, num_samples=7, log_likelihood=True)
        mean = found.sites["z"] * found.sites["top"].unsqueeze(-1)
        torch.testing.assert_close(found.log_likelihood["x"], dist.Normal(mean, 1.0).log_prob(X))
        assert found.scaled
        assert not sample_posterior(layered, layered_guide, num_samples=7).scaled


class TestTheDraws:
    def test_samples_have_shape_num_samples_by_site_shape(self):
        found = sample_posterior(layered, layered_guide, num_samples=5, chunk_size=2)
        assert {name: tuple(x.shape) for name, x in found.sites.items()} == {"top": (5,), "vector": (5, 2), "z": (5, 3)}
        assert found.log_p.shape == found.log_q.shape == (5,)
        assert found.observed["x"].equal(X)

    def test_samples_follow_distribution_of_guide(self):
        found = sample_posterior(layered, layered_guide, num_samples=4000).sites
        error = (found["z"].mean(0) - torch.tensor([0.2, 0.5, 0.8])).abs()
        assert error.max() < 4.9 * 0.5 / math.sqrt(4000)
        assert len(found["top"].unique()) == 4000

    def test_samples_are_sequential_under_data_dependent_control_flow(self):
        found = sample_posterior(branching, branching_guide, num_samples=40)
        heads = found.sites["coin"] == 1
        assert 0 < heads.sum() < 40
        assert torch.equal(found.sites["mean"].isnan(), ~heads)
        expected = dist.Normal(3.0, 1.0).log_prob(torch.tensor(1.0)) + math.log(0.5) - math.log(0.6)
        torch.testing.assert_close(found.log_weights[~heads], expected.expand(int((~heads).sum())))

    def test_samples_are_sequential_if_program_mixes_particles(self):
        found = sample_posterior(mixing, one_normal, num_samples=30)
        expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
        torch.testing.assert_close(found.log_weights, expected.expand(30))

    def test_samples_of_mixing_program_are_wrong_without_check(self, monkeypatch):
        monkeypatch.setattr(vectorization, "TOLERANCE", math.inf)
        assert sample_posterior(mixing, one_normal, num_samples=30).log_weights.std() > 0.1

    def test_sampling_leaves_no_gradient_and_no_trace(self):
        weight = pyro.param("weight", torch.tensor(0.2))

        def guide():
            pyro.sample("z", dist.Normal(pyro.param("weight"), 1.0))

        found = sample_posterior(one_normal, guide, num_samples=3)
        assert not found.log_q.requires_grad
        assert weight.grad is None

    def test_autoguide_can_be_sampled(self, normals):
        guide = AutoNormal(normals.model)
        found = sample_posterior(normals.model, guide, num_samples=6)
        assert list(found.sites) == ["z"]
        assert found.sites["z"].shape == (6,)


class TestSubsamples:
    @staticmethod
    def model():
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", 3, subsample_size=1) as i:
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[i])

    def test_each_sample_has_its_own_subsample(self):
        found = sample_posterior(self.model, one_normal, num_samples=2000)
        assert found.subsampled
        residual = found.log_p - dist.Normal(found.sites["z"].unsqueeze(-1), 1.0).log_prob(X).sum(-1) - found.log_q
        assert residual.mean().abs() < 4.9 * residual.std() / math.sqrt(2000)
        assert residual.std() > 1

    def test_subsampled_data_are_not_kept(self):
        found = sample_posterior(self.model, one_normal, num_samples=5, log_likelihood=True)
        assert found.observed == {}
        assert found.log_likelihood == {}

    def test_sites_in_subsampled_plates_are_omitted(self):
        def model():
            pyro.sample("top", dist.Normal(torch.tensor(0.0), 1.0))
            with pyro.plate("data", 3, subsample_size=1) as i, pyro.plate("repeats", 2):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X[i])

        def guide():
            pyro.sample("top", dist.Normal(torch.tensor(0.0), 1.0))
            with pyro.plate("data", 3, subsample_size=1) as i, pyro.plate("repeats", 2):
                pyro.sample("z", dist.Normal(100 * torch.arange(3.0)[i], 1.0))

        found = sample_posterior(model, guide, num_samples=20)
        assert set(found.sites) == {"top"}
        assert found.local == {"z"}
        assert found.subsampled

    def test_sites_indexed_by_datum_are_kept_under_subsampling(self):
        def program():
            for i in pyro.plate("data", 3, subsample_size=1):
                pyro.sample(f"z_{i}", dist.Normal(torch.tensor(100.0 * i), 1.0))

        found = sample_posterior(program, program, num_samples=60)
        assert found.local == frozenset()
        assert set(found.sites) == {"z_0", "z_1", "z_2"}
        for i in range(3):
            value = found.sites[f"z_{i}"]
            assert (value[~value.isnan()] - 100 * i).abs().max() < 10

    def test_subsample_of_all_data_omits_no_site(self):
        def program():
            with pyro.plate("data", 3, subsample_size=3):
                pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))

        found = sample_posterior(program, program, num_samples=5)
        assert found.sites["z"].shape == (5, 3)
        assert found.local == frozenset()

    def test_subsample_of_all_data_counts_as_none(self, normals):
        assert not sample_posterior(normals.model, normals.guide, num_samples=5).subsampled


@pytest.mark.parametrize("program", ["vectorized", "one by one"])
def test_numbers_of_categories_are_known_of_categorical_sites_alone(program):
    def model():
        if program == "one by one" and pyro.sample("coin", dist.Bernoulli(torch.tensor(0.5))):
            pass
        with pyro.plate("data", 4):
            pyro.sample("kind", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("pair", dist.Categorical(logits=torch.zeros(2, 5)).to_event(1))
        pyro.sample("count", dist.Poisson(torch.tensor(2.0)))

    assert sample_posterior(model, model, num_samples=3).num_categories == {"kind": 3, "pair": 5}


class TestProgress:
    def test_reason_for_sequential_sampling_is_logged(self, caplog):
        sample_posterior(branching, branching_guide, num_samples=3, progress=True)
        (record,) = caplog.records
        assert record.getMessage() == (
            "3 samples of the guide are drawn one by one, because the control flow depends on values of 'coin'."
        )

    def test_vectorized_or_unrequested_progress_logs_nothing(self, caplog, normals, capsys):
        sample_posterior(normals.model, normals.guide, num_samples=3, progress=True)
        sample_posterior(branching, branching_guide, num_samples=3)
        assert not caplog.records
        assert capsys.readouterr() == ("", "")

    def test_progress_bar_is_shown_on_terminal(self, monkeypatch, capsys):
        monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
        sample_posterior(branching, branching_guide, num_samples=3, progress=True)
        assert "samples of the guide" in capsys.readouterr().err


def test_guide_without_site_of_model_raises(normals):
    with pytest.raises(ValueError, match=r"^the model samples 'z', which the guide does not"):
        sample_posterior(normals.model, lambda: None, num_samples=5)


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"chunk_size": 0}, {"num_samples": 2.5}])
def test_invalid_num_samples_and_chunk_size_raise(normals, options):
    with pytest.raises(ValueError, match=r"^(num_samples|chunk_size) must be a whole number of 1 or more"):
        sample_posterior(normals.model, normals.guide, **options)


@pytest.mark.parametrize("args", [X, None, {"x": X}])
def test_args_must_be_tuple(normals, args):
    with pytest.raises(ValueError, match=r"^args must be a tuple, such as \(x,\) for one argument, got "):
        sample_posterior(normals.model, normals.guide, args)


def weighed(log_weights):
    log_p = torch.as_tensor(log_weights)
    return PosteriorSamples({}, log_p, torch.zeros_like(log_p), {}, {}, False)


class TestElboEstimate:
    def test_elbo_is_log_evidence_minus_kl_divergence(self, normals):
        found = elbo_estimate(sample_posterior(normals.model, normals.guide, num_samples=20_000))
        assert abs(found.value - normals.elbo) < Z * found.standard_error
        assert found.standard_error < 0.02

    def test_elbo_of_another_guide_is_distinguished(self, normals):
        found = elbo_estimate(sample_posterior(normals.model, normals.guide, num_samples=20_000))
        assert abs(found.value - normals.log_evidence) > Z * found.standard_error
        assert abs(found.value - normals._replace(sd=0.7).elbo) > Z * found.standard_error

    def test_standard_error_is_that_of_repeated_estimates(self, normals):
        found = [elbo_estimate(sample_posterior(normals.model, normals.guide, num_samples=100)) for _ in range(200)]
        spread = torch.tensor([each.value for each in found]).std().item()
        told = torch.tensor([each.standard_error for each in found]).mean().item()
        assert spread == pytest.approx(told, rel=0.3)

    def test_elbo_estimate_is_printed_with_standard_error(self):
        assert str(elbo_estimate(weighed([-1.0, -3.0]))) == "ELBO -2.000 ± 1 nats (standard error over 2 fresh samples)"

    @pytest.mark.parametrize("wrong", [torch.nan, -torch.inf])
    def test_nonfinite_weight_raises_with_index(self, wrong):
        with pytest.raises(
            FloatingPointError, match=r"^1 of 3 samples .* in sample 1 log p is (nan|-inf) and log q is 0"
        ):
            elbo_estimate(weighed([0.0, wrong, 1.0]))

    def test_single_sample_raises(self):
        with pytest.raises(ValueError, match=r"at least 2 samples, got 1$"):
            elbo_estimate(weighed([0.0]))
