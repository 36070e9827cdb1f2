"""The expected gradient, over all outcomes, equals the gradient of the exact ELBO."""

import pytest
from torch import nn

from zoo.gradients import Baseline, LeaveOneOutBaseline, MovingAverageBaseline, RunningStd, SumBaseline
from zoo.gradients.control_variates import ControlVariate
from zoo.inference.elbo import BlackBoxELBO, _control_variate, _downstream_costs, _sites

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")

BASELINES = {
    "none": "none",
    "a constant": -1.5,
    "moving average": "moving_average",
    "leave-one-out": "leave_one_out",
    "optimal": "optimal",
    "optimal, by factor": ControlVariate("factor"),
    "optimal, from separate samples": ControlVariate(num_extra_samples=1),
    "moving average and leave-one-out": SumBaseline(MovingAverageBaseline(), LeaveOneOutBaseline(0)),
}


class TestExpectedGradient:
    def test_expected_gradient_with_sequential_particles(self, program, bias):
        assert bias(BlackBoxELBO(num_particles=program.particles), program) < 1e-9

    def test_expected_gradient_with_vectorized_particles(self, static_program, bias):
        assert bias(BlackBoxELBO(num_particles=2, vectorize_particles=True), static_program) < 1e-9

    @pytest.mark.parametrize("name", ["branch", "beside_a_path", pytest.param("categories", marks=pytest.mark.slow)])
    @pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
    def test_expected_gradient_with_any_baseline(self, name, baseline, programs, bias):
        assert bias(BlackBoxELBO(num_particles=2, baseline=baseline), programs[name]()) < 1e-9

    @pytest.mark.parametrize(
        ("name", "baseline"),
        [
            *((name, "optimal") for name in ("way_out", "categories", "hidden")),
            pytest.param("scales", "optimal", marks=pytest.mark.slow),
            pytest.param("plates", "optimal", marks=pytest.mark.slow),
            pytest.param("beside_a_path", ControlVariate(num_extra_samples=2), marks=pytest.mark.slow),
            ("beside_a_path", ControlVariate("factor")),
            ("undeclared", ControlVariate("factor")),
            pytest.param("undeclared_beside", ControlVariate("factor"), marks=pytest.mark.slow),
        ],
    )
    def test_expected_gradient_with_vectorized_control_variate(self, name, baseline, programs, bias):
        elbo = BlackBoxELBO(num_particles=2, vectorize_particles=True, baseline=baseline)
        assert bias(elbo, programs[name]()) < 1e-9

    @pytest.mark.parametrize("vectorized", [False, True])
    def test_expected_gradient_with_learned_baseline(self, vectorized, programs, bias):
        net = nn.Linear(1, 1)
        elbo = BlackBoxELBO(num_particles=2, vectorize_particles=vectorized)
        assert bias(elbo, programs["informed"](net)) < 1e-9
        assert net.weight.grad is None
        assert isinstance(elbo.estimators.sites["site z"].baseline, SumBaseline)

    def test_expected_gradient_of_a_subsample_is_that_of_all_data(self, programs, bias):
        assert bias(BlackBoxELBO(), programs["subsample"](), of=programs["subsample"](None)) < 1e-9

    @pytest.mark.parametrize(
        ("name", "bound"), [("beside_a_path", "elbo"), ("beside_a_path", "iwae"), ("branch", "elbo")]
    )
    def test_scale_divides_all_parameters_by_the_same_number(self, name, bound, programs, parameters, moments):
        """So optima do not change; these programs have pathwise and score parts, and sites that share parameters."""
        program = programs[name]()
        theta = parameters(program)
        elbo, plain = (BlackBoxELBO(2, bound=bound, scale=scale) for scale in (RunningStd(floor=0.01), None))
        for _ in range(3):
            elbo.differentiable_loss(program.model, program.guide, theta)
        scale = elbo.scale.value
        assert scale != 1
        found, expected = (moments(each, program, theta).parameters[0].mean for each in (elbo, plain))
        assert (found * scale - expected).abs().max() < 1e-9

    def test_expected_gradient_in_eval_mode(self, programs, bias):
        assert bias(BlackBoxELBO(num_particles=2).eval(), programs["plates"]()) < 1e-9


class SeesItsOwnSample(Baseline):
    def predict(self, signal, context, mask):
        return signal.mean(0, keepdim=True)


def without(which):
    """Omit a term of the ELBO from the learning signals."""

    def changed(run):
        return downstream_costs(run._replace(model={k: v for k, v in run.model.items() if k != which}))

    downstream_costs = _downstream_costs.downstream_costs
    return changed


class TestPlantedBugIsDetected:
    """The same check must detect these bugs."""

    def test_baseline_that_depends_on_its_own_sample(self, programs, bias):
        assert bias(BlackBoxELBO(num_particles=2, baseline=SeesItsOwnSample()), programs["chain"]()) > 1e-3

    def test_scaling_from_the_same_samples(self, programs, bias):
        elbo = BlackBoxELBO(num_particles=2, baseline=ControlVariate(estimate="same_samples"))
        assert bias(elbo, programs["chain"]()) > 1e-3

    def test_score_of_normalized_parameters(self, programs, bias, monkeypatch):
        monkeypatch.setattr(_control_variate, "center", lambda gradient, *_: gradient)
        assert bias(BlackBoxELBO(num_particles=2, baseline="optimal"), programs["categories"]()) > 1e-3

    def test_omitted_term(self, programs, bias, monkeypatch):
        monkeypatch.setattr(_downstream_costs, "downstream_costs", without("x"))
        assert bias(BlackBoxELBO(), programs["plates"]()) > 1e-3

    def test_misaligned_plate(self, programs, bias, monkeypatch):
        monkeypatch.setattr(_downstream_costs, "sum_to_plates", shift_costs)
        assert bias(BlackBoxELBO(), programs["subsample"](None)) > 1e-3

    def test_ignored_path_out_of_a_plate(self, programs, bias, monkeypatch):
        monkeypatch.setattr(_sites, "propagate", overlook_the_way_out)
        _sites.dependencies.cache_clear()
        found = bias(BlackBoxELBO(), programs["way_out_and_in"]())
        _sites.dependencies.cache_clear()
        assert found > 1e-3

    def test_ignored_control_flow(self, programs, bias, monkeypatch):
        monkeypatch.setattr(_sites, "propagate", overlook_control_flow)
        _sites.dependencies.cache_clear()
        found = bias(BlackBoxELBO(), programs["branch"]())
        _sites.dependencies.cache_clear()
        assert found > 1e-3


def shift_costs(x, plates):
    """Shift the costs of the elements of a plate by one."""
    return sum_to_plates(x if x.requires_grad else x.roll(1), plates)


def overlook_the_way_out(node, known):
    sources = {source: plates for parent in node.parents for source, plates in known.get(parent, {}).items()}
    plates_of = {name: reach[name] for name, reach in known.items()}
    own = {node.name: node.plates} if node.name in node.parents and node.name not in known else {}
    return {source: plates_of[source] & node.plates for source in sources} | own


def overlook_control_flow(node, known):
    return propagate(node._replace(parents=node.parents - (node.control_dependencies - {node.name})), known)


propagate, sum_to_plates = _sites.propagate, _downstream_costs.sum_to_plates
