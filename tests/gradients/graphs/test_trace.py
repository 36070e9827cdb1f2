"""What a trace records, and which programs raise an error."""

import math

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Geometric,
    Gumbel,
    Independent,
    Laplace,
    LKJCholesky,
    MixtureSameFamily,
    Normal,
    Pareto,
    RelaxedBernoulli,
    Uniform,
    constraints,
)

from zoo.gradients.graphs import Pathwise, trace

IN_HALF_PRECISION = {
    "geometric": Geometric,
    "laplace": lambda scale: Laplace(torch.zeros_like(scale), scale),
    "transformed": lambda scale: Gumbel(torch.zeros_like(scale), scale),
    "relaxed": lambda logit: RelaxedBernoulli(torch.ones_like(logit), logits=logit),
}


def coin(probability=0.5):
    return Bernoulli(probs=torch.tensor(probability))


class TestInfluences:
    @pytest.mark.parametrize(
        ("name", "influenced"),
        [
            ("two_costs", {"x1": {"x2", "f1", "f2"}, "x2": {"f2"}}),
            ("independent", {"a": {"fa"}, "b": {"fb"}}),
            ("diamond", {"top": {"left", "right", "f"}, "left": {"f"}, "right": {"f"}}),
            ("branch", {"z": {"f"}}),
            ("index", {"i": {"j", "f"}, "j": {"f"}}),
            ("in_place", {"a": {"b", "f"}, "b": {"f"}}),
            ("nvil_chain", {"h1": {"h2", "h3", "r1", "r2", "r3"}, "h2": {"h3", "r2", "r3"}, "h3": {"r3"}}),
        ],
    )
    def test_influences_match_the_program(self, programs, theta, name, influenced):
        graph = trace(programs[name], theta)
        assert {name: graph.influences(name) for name in graph.samples} == influenced

    def test_name_that_is_no_sample_raises_an_error(self, programs, theta):
        with pytest.raises(ValueError, match="there is no sample 'f'; there are 'z'"):
            trace(programs["branch"], theta).influences("f")

    def test_influences_are_the_union_over_runs(self, theta):
        values = iter([0.0, 1.0])

        def program(graph, theta):
            x = graph.sample("x", coin())
            y = graph.sample("y", coin()) if x.item() else 0.0
            graph.cost("f", y + theta[0])

        graph = trace(program, theta, num_samples=2, draw=lambda name, _: torch.tensor(next(values, 1.0)))
        assert graph.influences("x") == {"y", "f"}
        assert graph.influences("y") == {"f"}


class TestRun:
    def test_samples_and_costs_are_kept_by_name(self, theta):
        def program(graph, theta):
            x = graph.sample("x", Normal(theta[0], 1.0))
            graph.cost("f", 2 * x)
            graph.cost("constant", 3.0)

        graph = trace(program, theta)
        assert graph.costs["f"] == 2 * graph.samples["x"]
        assert graph.costs["constant"] == 3
        assert not graph.samples["x"].requires_grad

    def test_pathwise_sample_has_a_gradient(self, theta):
        def program(graph, theta):
            graph.cost("f", graph.sample("x", Normal(theta[0], 1.0)) ** 2)

        graph = trace(program, theta, estimators={"x": Pathwise()})
        graph.surrogate().backward()
        assert theta.grad[0] == 2 * graph.samples["x"]

    def test_values_come_from_draw(self, theta):
        def program(graph, theta):
            graph.cost("f", graph.sample("x", coin()) + 2 * graph.sample("y", coin()))

        asked = []
        graph = trace(
            program, theta, draw=lambda name, distribution: asked.append((name, distribution)) or torch.tensor(1.0)
        )
        assert graph.costs["f"] == 3
        assert [name for name, _ in asked] == ["x", "y"]
        assert all(isinstance(distribution, Bernoulli) for _, distribution in asked)

    def test_distribution_without_support_is_accepted(self, theta):
        class Unsure(Bernoulli):
            support = None

        class Dependent(Bernoulli):
            support = constraints.dependent

        class Silent(Bernoulli):
            support = Distribution.support

        for distribution in (Unsure, Dependent, Silent):
            graph = trace(
                bad(distribution=distribution(torch.tensor(0.5), validate_args=False)),
                theta,
                draw=lambda *_: torch.tensor(1.0),
            )
            assert graph.samples["x"] == 1

    def test_program_may_write_to_samples_and_arguments(self, theta):
        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[0]))
            total = theta.new_zeros(())
            for name in ("first", "second"):
                total += x + 1
                graph.cost(name, total)
            x.fill_(9.0)

        graph = trace(program, theta, draw=lambda *_: torch.tensor(1.0, dtype=torch.float64))
        assert graph.samples["x"] == 1
        assert [cost.item() for cost in graph.costs.values()] == [2, 4]
        graph.surrogate().backward()
        assert theta.grad[0].item() == pytest.approx(6 * (1 - torch.sigmoid(theta[0]).item()))

    @pytest.mark.usefixtures("without_type_checks")
    def test_costs_of_any_dtype_are_accepted(self, theta):
        def program(graph, theta):
            x = graph.sample("x", Categorical(logits=theta))
            graph.cost("integer", x)
            graph.cost("truth", x > 0)
            graph.cost("single", x.float() / 2)
            graph.cost("number", 3)

        graph = trace(program, theta, draw=lambda *_: torch.tensor(2))
        assert graph.surrogate() == graph.surrogate(order=2) == 2 + 1 + 1 + 3

    def test_inference_mode_around_trace_is_left(self, theta):
        with torch.inference_mode():
            two = torch.tensor(2.0)
            graph = trace(lambda graph, theta: graph.cost("f", two * graph.sample("x", coin())), theta)
        assert graph.influences("x") == {"f"}

    def test_program_may_take_any_arguments(self, theta):
        def program(graph, theta, words, scale=1.0):
            for word in words:
                graph.sample(word, coin())
            graph.cost("f", scale)

        assert trace(program, theta, ["a", "b"], 7.0).costs["f"] == 7

    def test_torch_is_unpatched_after_a_trace(self, programs, theta):
        trace(programs["branch"], theta)
        assert torch.overrides._get_current_function_mode_stack() == []
        with pytest.raises(ZeroDivisionError):
            trace(lambda graph, theta: 1 / 0, theta)
        assert torch.overrides._get_current_function_mode_stack() == []


def moving(distribution):
    """A distribution whose support has a learned bound."""
    end = torch.ones(2, requires_grad=True)
    return distribution(0.1, end) if distribution is Uniform else distribution(end, 1.0)


def mixture(probabilities, components):
    return MixtureSameFamily(Categorical(probabilities), components)


def bad(**parts):
    """A program with one sample and one cost, with one invalid part."""

    def program(graph, theta):
        distribution = parts.get("distribution", coin())
        graph.sample("x", distribution)
        for name in parts.get("more", []):
            graph.sample(name, coin())
        graph.cost("f", parts.get("cost", theta[0]))

    return program


@pytest.mark.usefixtures("without_type_checks")
class TestBadPrograms:
    @pytest.mark.parametrize(
        ("parts", "sentence"),
        [
            ({"more": ["x"]}, "the name 'x' is used twice"),
            ({"more": ["y", "y"]}, "the name 'y' is used twice"),
            ({"cost": torch.zeros(3)}, r"cost 'f' must be one number, got shape \(3,\)"),
            ({"cost": torch.tensor(math.nan)}, "cost 'f' is not finite"),
            ({"cost": math.inf}, "cost 'f' is not finite"),
            ({"cost": [1.0, 2.0]}, "cost 'f' must be a number, got list"),
            ({"cost": None}, "cost 'f' must be a number, got NoneType"),
            ({"cost": torch.tensor(1j)}, "cost 'f' must be a real number, got torch.complex64"),
            ({"more": [3]}, "the name of a sample or a cost must be a string, got 3"),
            (
                {"distribution": Bernoulli(logits=torch.tensor(math.nan), validate_args=False)},
                "sample 'x' cannot be drawn from Bernoulli",
            ),
            ({"distribution": 0.5}, "sample 'x' must have a distribution of torch.distributions, got 0.5"),
            ({"distribution": moving(Uniform)}, r"the support of sample 'x' \(Uniform\) depends on its parameters"),
            ({"distribution": Independent(moving(Uniform), 1)}, r"the support of sample 'x' \(Independent\) depends"),
            (
                {"distribution": LKJCholesky(3, 1.5)},
                r"sample 'x' \(LKJCholesky\) does not follow its log_prob if",
            ),
            (
                {"distribution": mixture(torch.tensor([1.0, 0.0], requires_grad=True), Normal(torch.zeros(2), 1.0))},
                r"a probability of sample 'x' \(MixtureSameFamily\) is 0 or 1",
            ),
            (
                {"distribution": mixture(torch.ones(2), Bernoulli(torch.tensor([0.5, 1.0], requires_grad=True)))},
                r"a probability of sample 'x' \(MixtureSameFamily\) is 0 or 1",
            ),
            (
                {"distribution": mixture(torch.ones(2), Geometric(torch.tensor([0.5, 0.9], dtype=torch.float16)))},
                r"sample 'x' \(MixtureSameFamily\) is sampled from uniform numbers",
            ),
            ({"distribution": moving(Pareto)}, r"the support of sample 'x' \(Pareto\) depends on its parameters"),
        ],
    )
    def test_bad_program_raises_an_error_that_names_the_node(self, theta, parts, sentence):
        with pytest.raises(ValueError, match=sentence) as error:
            trace(bad(**parts), theta)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("distribution", IN_HALF_PRECISION.values(), ids=IN_HALF_PRECISION)
    def test_distribution_sampled_from_half_precision_uniforms_raises_an_error(self, theta, distribution, dtype):
        with pytest.raises(ValueError, match=r"sample 'x' .* is sampled from uniform numbers .* parameters in float32"):
            trace(bad(distribution=distribution(torch.tensor(0.5, dtype=dtype))), theta)

    @pytest.mark.parametrize("value", [0.5, math.nan, -1.0])
    @pytest.mark.parametrize("validate", [True, False])
    def test_sample_outside_its_support_raises_an_error(self, theta, value, validate):
        distribution = Bernoulli(probs=torch.tensor(0.5), validate_args=validate)
        with pytest.raises(ValueError, match="sample 'x' lies outside the support"):
            trace(bad(distribution=distribution), theta, draw=lambda *_: torch.tensor(value))

    def test_sample_that_is_no_tensor_raises_an_error(self, theta):
        with pytest.raises(ValueError, match="draw must return a tensor for sample 'x', got NoneType"):
            trace(bad(), theta, draw=lambda *_: None)

    @pytest.mark.parametrize("value", [torch.ones(3), torch.ones(1)])
    def test_sample_of_the_wrong_shape_raises_an_error(self, theta, value):
        with pytest.raises(ValueError, match=r"sample 'x' was drawn with shape \(.,\); its distribution has \(\)"):
            trace(bad(), theta, draw=lambda *_: value)

    def test_nan_log_probability_raises_an_error(self, theta):
        distribution = Normal(torch.tensor(math.nan), 1.0, validate_args=False)
        with pytest.raises(ValueError, match="the log-probability of sample 'x' is not finite"):
            trace(bad(distribution=distribution), theta, draw=lambda *_: torch.tensor(0.0))

    def test_impossible_sample_raises_an_error(self, theta):
        distribution = Categorical(logits=torch.tensor([0.0, -math.inf]))
        with pytest.raises(ValueError, match="the log-probability of sample 'x' is not finite"):
            trace(bad(distribution=distribution), theta, draw=lambda *_: torch.tensor(1))

    def test_program_without_sample_or_cost_raises_an_error(self, theta):
        with pytest.raises(ValueError, match="the program sampled nothing"):
            trace(lambda graph, theta: graph.cost("f", theta[0]), theta)
        with pytest.raises(ValueError, match="the program declared no cost"):
            trace(lambda graph, theta: graph.sample("x", coin()), theta)

    def test_invalid_options_raise_an_error(self, programs, theta):
        with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
            trace(programs["branch"], theta, num_samples=0)
        with pytest.raises(ValueError, match="batch_dims counts the leading dimensions that are independent, got -1"):
            trace(programs["branch"], theta, batch_dims=-1)
        with pytest.raises(ValueError, match=r"sample 'z' \(Bernoulli\) has no pathwise gradient"):
            trace(programs["branch"], theta, estimators={"z": Pathwise()})
        with pytest.raises(ValueError, match=r"the estimator of 'z' must be Pathwise\(\), or omitted"):
            trace(programs["branch"], theta, estimators={"z": "pathwise"})
        with pytest.raises(ValueError, match="there is no sample 'q'; there are 'a', 'b'"):
            trace(programs["independent"], theta, estimators={"q": Pathwise()})

    def test_estimator_of_a_sample_missing_in_this_run_is_accepted(self, programs, theta):
        graph = trace(programs["random_length"], theta, estimators={"coin9": Pathwise()})
        assert "coin9" not in graph.samples


def test_python_number_as_cost_has_double_precision():
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", 1 / 3 if x.item() else 0.1)
        graph.cost("count", torch.tensor(16_777_217))

    one = torch.ones((), dtype=torch.float64)
    graph = trace(program, 0 * one, draw=lambda *_: one)
    assert graph.costs["f"].item() == 1 / 3
    assert graph.costs["count"].item() == 16_777_217


def test_samples_of_a_nested_trace_are_tracked_by_the_outer_one():
    def inner(graph, x):
        y = graph.sample("y", Bernoulli(probs=0.2 + 0.6 * x))
        graph.cost("f", 2 * y)

    def outer(graph):
        x = graph.sample("x", Bernoulli(0.5))
        graph.cost("of the inner one", trace(inner, x).costs["f"])
        graph.cost("beside", 1.0)

    assert trace(outer).influences("x") == {"of the inner one"}


class TestBatch:
    def test_batch_elements_are_credited_separately(self):
        theta = torch.randn(100, 3, dtype=torch.float64, requires_grad=True)

        def program(graph, theta):
            x = graph.sample("x", Independent(Bernoulli(logits=theta), 1))
            y = graph.sample("y", Bernoulli(logits=theta * x))  # three elements of one node
            graph.cost("f", ((x - 2 * y) * theta).sum(-1))

        graph = trace(program, theta, batch_dims=1)
        (run,) = graph.runs
        assert (
            run.samples["x"].log_prob.shape == run.samples["y"].log_prob.shape == run.costs["f"].value.shape == (100,)
        )
        graph.surrogate().backward()
        together = theta.grad.clone()
        for i in range(100):
            one = theta.detach()[i].requires_grad_()
            trace(program, one, draw=lambda name, _, i=i: graph.samples[name][i]).surrogate().backward()
            torch.testing.assert_close(one.grad, together[i], rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        ("shapes", "sentence"),
        [
            ({"x": (), "f": (4,)}, r"sample 'x' has shape \(\), which does not begin with the 1 batch dimensions"),
            ({"x": (4,), "f": (5,)}, r"cost 'f' has shape \(5,\), which does not begin with .* \(4,\)"),
            (
                {"x": (4,), "f": ()},
                r"cost 'f' must be one number for each element of 1 batch dimensions, got shape \(\)",
            ),
            ({"x": (4,), "f": (4, 2)}, r"cost 'f' must be one number for each element .* got shape \(4, 2\)"),
        ],
    )
    def test_node_of_another_batch_shape_raises_an_error(self, shapes, sentence):
        def program(graph):
            graph.sample("x", Bernoulli(probs=torch.full(shapes["x"], 0.5)))
            graph.cost("f", torch.zeros(shapes["f"]))

        with pytest.raises(ValueError, match=sentence):
            trace(program, batch_dims=1)

    def test_number_is_the_cost_of_each_batch_element(self):
        def program(graph):
            graph.sample("x", Bernoulli(probs=torch.full((4,), 0.5)))
            graph.cost("f", 2.0)

        assert trace(program, batch_dims=1).surrogate() == 8


class TestRender:
    def test_graph_has_circles_squares_and_arrows(self, programs, theta):
        svg = trace(programs["two_costs"], theta).render()
        assert (svg.count("<circle"), svg.count("<rect"), svg.count("<line")) == (2, 2, 3)
        assert all(f">{name}</text>" in svg for name in ("x1", "x2", "f1", "f2"))

    def test_pathwise_sample_is_a_deterministic_node(self, theta):
        def program(graph, theta):
            graph.cost("f", graph.sample("x", Normal(theta[0], 1.0)))

        svg = trace(program, theta, estimators={"x": Pathwise()}).render()
        assert (svg.count("<circle"), svg.count("<rect")) == (0, 2)
