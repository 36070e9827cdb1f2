import math

import pytest
import torch

from zoo.inference import experiment as module
from zoo.inference.experiment import ProgramExperiment

METRICS = {
    "elbo": -7.0693,
    "elbo_std_error": 0.0003,
    "num_samples": 4000.0,
    "k_hat": 0.31,
    "k_hat_std_error": 0.1,
    "num_quantities": 1.0,
    "mean_fairness": 0.5,
    "sd_fairness": 0.09,
    "reference_mean_fairness": 0.6,
    "reference_sd_fairness": 0.1,
    "reference_mean_gap": 1.0,
    "reference_sd_ratio_low": 0.9,
    "reference_sd_ratio_high": 0.9,
}
METRICS_CSV = "step,train_bound,validation_elbo,validation_elbo_std_error\n9,-8,-7.5,0.5\n12,-8,,\n19,-7,-7.25,0.25\n"


@pytest.fixture
def make():
    def make_experiment(program="beta_bernoulli", **options):
        return ProgramExperiment(program, False, {"baseline": "leave_one_out"}, **options)

    return make_experiment


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of an experiment's untrained guide, and the measurements of a run."""

    def save(experiment):
        inner = experiment.module
        content = {"state_dict": inner.state_dict(), "hyper_parameters": dict(inner.hparams)}
        torch.save({**content, "model": "ProgramInference", "config": {}}, tmp_path / "last.ckpt")
        (tmp_path / "metrics.csv").write_text(METRICS_CSV)
        return tmp_path / "last.ckpt"

    return save


class TestLoaders:
    def test_epoch_has_steps_per_epoch_batches_of_all_data(self, make):
        experiment = make(steps_per_epoch=7)
        batches = list(experiment.loaders.train(0, 1))
        assert len(batches) == 7
        assert all(torch.equal(flips, batches[0][0]) and len(flips) == 10 for (flips,) in batches)
        assert len(experiment.loaders.validation(0, 1)) == 1

    @pytest.mark.parametrize(
        ("option", "least"), [("steps_per_epoch", "a whole number of 1"), ("num_eval_samples", "at least 2")]
    )
    def test_invalid_numbers_are_named(self, option, least, make):
        with pytest.raises(ValueError, match=f"{option} must be {least}.*, got 0"):
            make(**{option: 0})


class TestStopping:
    def test_no_stopping_rule_by_default(self, make):
        assert make().callbacks() == []

    @pytest.mark.parametrize("options", [{}, {"schedule": "cosine"}])
    def test_convergence_tolerance_needs_constant_learning_rate(self, make, options):
        with pytest.raises(ValueError, match=r"set model\.schedule=constant, or remove model\.convergence_tol"):
            make(convergence_tolerance=0.1, **options)

    @pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
    def test_convergence_tolerance_must_be_positive(self, make, tolerance):
        with pytest.raises(ValueError, match=rf"^convergence_tolerance must be above 0, or null, got {tolerance}$"):
            make(convergence_tolerance=tolerance, schedule="constant")

    def test_convergence_is_checked_once_per_epoch(self, make):
        (stopping,) = make(convergence_tolerance=0.1, schedule="constant", steps_per_epoch=7).callbacks()
        assert (stopping.rule.check_interval, stopping.rule.tolerance) == (7, 0.1)


class TestReport:
    def test_report_evaluates_guide_and_saves_figures(self, make, checkpoint, tmp_path):
        experiment = make(num_eval_samples=2000)
        metrics = experiment.report(checkpoint(experiment), tmp_path)
        assert metrics.keys() == METRICS.keys()
        # The guide starts as Beta(15, 15), the posterior is Beta(16, 14).
        beta = torch.distributions.Beta
        gap = torch.distributions.kl_divergence(beta(15.0, 15.0), beta(16.0, 14.0)).item()
        evidence = sum(sign * math.lgamma(x) for sign, x in [(1, 16), (1, 14), (1, 20), (-1, 30), (-2, 10)])
        assert metrics["elbo"] == pytest.approx(evidence - gap, abs=5 * metrics["elbo_std_error"])
        assert metrics["mean_fairness"] == pytest.approx(0.5, abs=0.01)
        assert metrics["reference_mean_fairness"] == pytest.approx(16 / 30)
        for name in ("posterior.png", "elbo.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    def test_report_is_deterministic(self, make, checkpoint, tmp_path, monkeypatch):
        for name in ("_save_posterior_figure", "_save_elbo_figure"):
            monkeypatch.setattr(module, name, lambda *_: None)
        experiment = make(num_eval_samples=50)
        path = checkpoint(experiment)
        assert experiment.report(path, tmp_path) == experiment.report(path, tmp_path)

    def test_report_without_reference_has_moments_of_first_elements(self, make, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "MAX_QUANTITIES", 3)
        experiment = make("logistic_regression", num_eval_samples=200)
        metrics = experiment.evaluate(checkpoint(experiment), tmp_path)
        assert {"mean_beta[0]", "sd_beta[2]"} <= metrics.keys()
        assert "mean_beta[3]" not in metrics
        assert metrics["num_quantities"] == 10
        assert not (tmp_path / "posterior.png").exists()
        assert experiment.describe(metrics).endswith("\n  and 7 more")

    def test_report_contains_distance_to_family_optimum(self, make, checkpoint, tmp_path):
        experiment = make(num_eval_samples=50, compare_with_optimum=True)
        metrics = experiment.evaluate(checkpoint(experiment), tmp_path)
        # The guide starts as Beta(15, 15), the optimum is the posterior, Beta(16, 14).
        sd = torch.distributions.Beta(16.0, 14.0).stddev.item()
        assert metrics["optimum_mean_gap"] == pytest.approx((16 / 30 - 0.5) / sd, rel=1e-5)
        assert metrics["optimum_sd_ratio_low"] == metrics["optimum_sd_ratio_high"] > 1
        assert "optimum of the family: means differ by at most 0.372 sd" in experiment.describe(metrics)

    def test_optimum_of_discrete_guide_raises_before_training(self, make, monkeypatch, zoo_data):
        monkeypatch.setenv("ZOO_DATA", str(zoo_data))
        with pytest.raises(ValueError, match="the optimum of program=gaussian_mixture_assignments cannot be computed"):
            make("gaussian_mixture_assignments", compare_with_optimum=True)

    def test_report_contains_convergence(self, make, checkpoint, tmp_path):
        experiment = make(num_eval_samples=50, convergence_tolerance=0.1, schedule="constant")
        path = checkpoint(experiment)
        (stopping,) = experiment.callbacks()
        for iterates, words in (
            (
                torch.randn(100, 2) + torch.linspace(0, 100, 100).unsqueeze(-1),
                "not converged after 100 steps: increase",
            ),
            (0.01 * torch.randn(900, 2), "converged: average of steps "),
        ):
            for iterate in iterates:
                stopping.rule.update(iterate)
            saved = torch.load(path, weights_only=True)
            torch.save({**saved, "callbacks": {stopping.state_key: stopping.state_dict()}}, path)
            metrics = make(num_eval_samples=50, convergence_tolerance=0.1, schedule="constant").evaluate(path, tmp_path)
            assert f"\n  {words}" in experiment.describe(metrics)
        assert metrics["converged"] == 1
        assert metrics["half_width"] < 0.1

    def test_elbo_curve_is_read_from_rows_with_validation(self, checkpoint, make, tmp_path, monkeypatch):
        drawn = {}
        monkeypatch.setattr(module, "elbo_figure", drawn.update)
        monkeypatch.setattr(module, "save_figure", lambda *_: None)
        experiment = make(num_eval_samples=50)
        experiment.report(checkpoint(experiment), tmp_path)
        steps, elbo, error = drawn["beta_bernoulli"]
        assert (steps.tolist(), elbo.tolist(), error.tolist()) == ([10, 20], [-7.5, -7.25], [0.5, 0.25])


def test_describe_lists_all_metrics(make):
    assert make().describe(METRICS).splitlines() == [
        "beta_bernoulli: a coin's fairness; Pyro's tutorial SVI part III",
        "  ELBO -7.069 ± 0.0003 nats (standard error over 4,000 fresh samples)",
        "  k-hat 0.31 ± 0.10 over 4,000 samples: good, the guide is close to the posterior where it samples",
        "  posterior mean (standard deviation); distance of means in standard deviations of the reference",
        "                 guide  reference  distance",
        "  fairness  0.5 (0.09)  0.6 (0.1)   1.00 sd",
    ]


def test_describe_omits_missing_k_hat(make):
    metrics = {name: x for name, x in METRICS.items() if not name.startswith("k_hat")}
    assert "k-hat" not in make().describe(metrics)


def test_describe_reports_point_mass_guide(make):
    metrics = {name: x for name, x in METRICS.items() if not name.startswith("k_hat")} | {"num_constant_elements": 1.0}
    assert "no k-hat: a value of the guide is the same in all samples" in make().describe(metrics)


OWN = """
import pyro
import pyro.distributions as dist
import torch

X = torch.tensor([0.5, 2.0, 1.0])

def model():
    kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
    with pyro.plate("data", 3, subsample_size=2) as i:
        z = pyro.sample("z", dist.Normal(kind.float(), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X[i])

def guide():
    pyro.sample("kind", dist.Categorical(logits=pyro.param("logits", torch.tensor([0.0, -30.0, -30.0]))))
    with pyro.plate("data", 3, subsample_size=2) as i:
        pyro.sample("z", dist.Normal(pyro.param("loc", X.clone())[i], 1.0))
"""


@pytest.mark.filterwarnings("ignore:site .* is outside every plate")
def test_describe_shows_category_probabilities_and_omits_subsampled_sites(checkpoint, tmp_path, caplog):
    folder = tmp_path / "of-a-name-that-is-long" / "and-another-folder-in-it" / "and-one-more-for-a-path-of-120-letters"
    folder.mkdir(parents=True)
    (folder / "own.py").write_text(OWN)
    experiment = ProgramExperiment(
        f"{folder / 'own.py'}:model:guide", True, {"baseline": "leave_one_out"}, num_eval_samples=20
    )
    metrics = experiment.report(checkpoint(experiment), tmp_path)
    assert {name: x for name, x in metrics.items() if name.startswith("mean_")} == {
        "mean_kind=0": 1,
        "mean_kind=1": 0,
        "mean_kind=2": 0,
    }
    assert (metrics["num_quantities"], metrics["num_local_sites"]) == (3, 1)
    assert "without 1 site in a subsampled plate" in experiment.describe(metrics)
    assert "20 samples of the guide are drawn one by one, because each has its own subsample" in caplog.text
    assert (tmp_path / "elbo.png").exists()
