"""Sample and cost statements in any grad mode, and errors that the program catches."""

import contextlib

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Normal

from zoo.gradients.graphs import Pathwise, expected_cost, trace
from zoo.gradients.testing import check_unbiased

SLOPE = torch.tensor(0.7, dtype=torch.float64).sigmoid()
EXACT = 3 * SLOPE * (1 - SLOPE) + 1.4  # of 3 x + theta², x ~ Bernoulli(logits=theta), at 0.7: 2.0651


@pytest.fixture
def theta():
    return torch.tensor(0.7, dtype=torch.float64, requires_grad=True)


OFF = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}


def sample_alone(off):
    def program(graph, theta):
        distribution = Bernoulli(logits=theta)
        with off():
            x = graph.sample("x", distribution)
        graph.cost("f", 3 * x + theta**2)

    return program


def sample_and_its_distribution(off):
    def program(graph, theta):
        with off():
            x = graph.sample("x", Bernoulli(logits=theta))  # the parameter itself, which keeps its gradient
        graph.cost("f", 3 * x + theta**2)

    return program


def cost_statement(off):
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        value = 3 * x + theta**2
        with off():
            graph.cost("f", value)

    return program


def on_within_off(off):
    def program(graph, theta):
        with off(), torch.inference_mode(False), torch.enable_grad():
            x = graph.sample("x", Bernoulli(logits=theta))
            graph.cost("f", 3 * x + theta**2)

    return program


def constant_before(off):
    def program(graph, theta):
        with off():
            graph.sample("noise", Bernoulli(probs=theta.new_tensor(0.5)))
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", 3 * x + theta**2)

    return program


PLACES = [sample_alone, sample_and_its_distribution, cost_statement, on_within_off, constant_before]


@pytest.mark.parametrize("off", OFF.values(), ids=OFF)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
class TestGradMode:
    def test_exact_gradient_is_the_same_in_any_grad_mode(self, place, off, theta):
        (gradient,) = torch.autograd.grad(expected_cost(place(off), theta), theta)
        torch.testing.assert_close(gradient, EXACT, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_surrogates_are_unbiased_in_any_grad_mode(self, place, off, theta, order):
        def estimator(program, theta, *, draw):
            return trace(program, theta, draw=draw).surrogate(order=order)

        assert check_unbiased(estimator, place(off), theta)


def test_hessian_with_sample_under_no_grad_is_exact(theta, bias, hessian, replayed):
    program, vector = sample_alone(torch.no_grad), theta.detach().reshape(1).requires_grad_()

    def of_vector(graph, vector):
        program(graph, vector[0])

    truth = hessian(expected_cost(of_vector, vector), vector)
    found = hessian(replayed(of_vector, vector, lambda graph: graph.surrogate(order=2)), vector)
    torch.testing.assert_close(found, truth)
    slope = 3 * SLOPE * (1 - SLOPE) * (1 - 2 * SLOPE) + 2
    torch.testing.assert_close(truth, slope.reshape(1, 1))


def test_pathwise_sample_under_no_grad_keeps_its_gradient(theta):
    def program(graph, theta):
        distribution = Normal(theta, 1.0)
        with torch.no_grad():
            x = graph.sample("x", distribution)
        graph.cost("f", 3 * x)

    graph = trace(program, theta, estimators={"x": Pathwise()})
    assert torch.autograd.grad(graph.surrogate(), theta)[0] == 3


def test_program_decorated_with_no_grad_keeps_the_score_and_has_constant_costs(theta):
    @torch.no_grad()
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        graph.cost("f", 3 * x + theta**2)

    (gradient,) = torch.autograd.grad(expected_cost(program, theta), theta)
    torch.testing.assert_close(gradient, EXACT - 1.4)


def test_trace_called_under_no_grad_keeps_gradients(theta):
    with torch.no_grad():
        graph = trace(sample_alone(torch.no_grad), theta, draw=lambda *_: torch.tensor(1.0))
    torch.testing.assert_close(torch.autograd.grad(graph.surrogate(), theta)[0], 3.49 * (1 - SLOPE) + 1.4)


def test_writes_in_inference_mode_are_tracked(theta):
    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        with torch.inference_mode():
            board = torch.zeros(2, dtype=theta.dtype)
            board[1] = x
            total = board.sum()
        graph.cost("f", 3 * total.clone() + theta**2)

    assert trace(program, theta).influences("x") == {"f"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # used by torch's own forward mode
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_torch_func_transforms_of_a_program_are_exact(transform, theta):
    program = sample_alone(torch.no_grad)
    if transform is not torch.func.jacfwd:  # the score is a detached number times a gradient, both ways
        graph = transform(lambda t: trace(program, t, draw=lambda *_: torch.tensor(1.0)).surrogate())
        torch.testing.assert_close(graph(theta.detach()), 3.49 * (1 - SLOPE) + 1.4)
    torch.testing.assert_close(transform(lambda t: expected_cost(program, t))(theta.detach()), EXACT)


DISTRIBUTIONS = {
    "computed": lambda theta: Bernoulli(logits=2 * theta),
    "view": lambda theta: Bernoulli(logits=theta.expand(1)),
    "normalized": lambda theta: Categorical(logits=torch.stack([theta, -theta])),
    "written": lambda theta: Bernoulli(logits=torch.zeros((), dtype=theta.dtype).copy_(theta)),
    "one_of_two_parameters": lambda theta: Normal(theta, theta.exp()),
}


@pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("sampled_inside", [True, False])
def test_distribution_that_lost_its_gradient_raises_an_error(make, off, sampled_inside, theta):
    def program(graph, theta):
        with off():
            distribution = make(theta)
            if sampled_inside:
                x = graph.sample("x", distribution)
        if not sampled_inside:
            x = graph.sample("x", distribution)
        graph.cost("f", x.sum())

    sentence = "distribution of sample 'x' was computed under torch.no_grad\\(\\) .* construct it outside of no_grad"
    with pytest.raises(ValueError, match=sentence):
        trace(program, theta)


def test_distribution_of_a_detached_parameter_may_be_constant(theta):
    def program(graph, theta):
        with torch.no_grad():
            Bernoulli(logits=theta)
            frozen = torch.tanh(theta)  # a part that is not trained
        x = graph.sample("x", Bernoulli(logits=2 * theta.detach()))
        y = graph.sample("y", Bernoulli(logits=theta * frozen))
        graph.cost("f", 3 * x * y)

    assert trace(program, theta).influences("x") == {"f"}


VIEWS = {
    "view": lambda theta: theta.view(1),
    "expand": lambda theta: theta.expand(2),
    "unbind": lambda theta: theta.expand(2).unbind()[1],
    "unsqueeze": lambda theta: theta.unsqueeze(0),
    "index": lambda theta: theta[...],
    "transpose": lambda theta: theta.reshape(1, 1).T,
}
USES = {
    "moved": lambda view, theta: view.reshape(-1)[0],
    "summed": lambda view, theta: view.mean(),
    "with_others": lambda view, theta: (view * theta).mean(),
    "in_another_type": lambda view, theta: view.float().mean(),
    "written": lambda view, theta: torch.zeros((), dtype=theta.dtype).add_(view.mean()),
}


@pytest.mark.parametrize(("off", "factor"), [(torch.no_grad, None), (torch.no_grad, 1), (torch.inference_mode, None)])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_distribution_of_a_view_made_under_no_grad_raises_an_error(make, use, off, factor, theta):
    """Such a view has requires_grad=True, and so has everything computed from it."""

    def program(graph, theta):
        base = theta if factor is None else factor * theta
        with off():
            view = make(base)
        graph.cost("f", 3 * graph.sample("x", Bernoulli(logits=use(view, theta))))

    for interpret in (trace, expected_cost):
        with pytest.raises(ValueError, match=r"distribution of sample 'x' was computed under torch\.no_grad"):
            interpret(program, theta)


CONSTANTS = {
    "detached": lambda view, theta: view.detach()[0],
    "computed_and_detached": lambda view, theta: (view * 1).detach()[0],
    "part": lambda view, theta: theta * view.detach()[0] / theta.detach(),
    "computed_part": lambda view, theta: theta * (view * 1).detach()[0] / theta.detach(),
    "unused": lambda view, theta: theta.view(1)[0],
    "parameter_itself": lambda view, theta: theta,
}


@pytest.mark.parametrize("use", CONSTANTS.values(), ids=CONSTANTS)
def test_view_made_under_no_grad_may_be_detached_on_purpose(use, theta):
    def program(graph, theta):
        before = theta.view(1)
        with torch.no_grad():
            view = theta.view(1)
        x = graph.sample("x", Bernoulli(logits=use(view, theta)))
        y = graph.sample("y", Bernoulli(logits=before[0]))
        graph.cost("f", 3 * x + 3 * y)

    detached = use in (CONSTANTS["detached"], CONSTANTS["computed_and_detached"])
    (gradient,) = torch.autograd.grad(expected_cost(program, theta), theta)
    torch.testing.assert_close(gradient, (1 if detached else 2) * 3 * SLOPE * (1 - SLOPE))


def test_parameter_updated_through_a_view_under_no_grad_keeps_its_gradient(theta):
    def program(graph, theta):
        with torch.no_grad():
            theta.view(1).mul_(2)
        graph.cost("f", 3 * graph.sample("x", Bernoulli(logits=theta)))

    graph = trace(program, theta, draw=lambda *_: torch.tensor(1.0))
    torch.testing.assert_close(torch.autograd.grad(graph.surrogate(), theta)[0], 3 * (1 - theta.detach().sigmoid()))


class TestCaughtError:
    """An error of a statement ends the trace even if the program catches it."""

    def test_error_that_the_program_catches_is_raised_at_the_end(self, theta):
        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta))
            with contextlib.suppress(ValueError):
                graph.cost("f", x / 0)
            graph.cost("g", x)

        with pytest.raises(ValueError, match="cost 'f' is not finite"):
            trace(program, theta, draw=lambda *_: torch.tensor(1.0))

    @pytest.mark.parametrize("caught", [BaseException, Exception])
    def test_caught_error_of_an_impossible_outcome_adds_no_cost(self, caught, theta):
        """With masked logits, against the sum over the two possible outcomes."""

        def program(graph, theta):
            try:
                x = graph.sample("x", Categorical(logits=torch.stack([theta, theta - torch.inf, -theta])))
                paid = 3 * x
            except caught:
                paid = 100.0
            graph.cost("f", paid + theta**2)

        p = (2 * theta.detach()).sigmoid()
        (gradient,) = torch.autograd.grad(expected_cost(program, theta), theta)
        torch.testing.assert_close(gradient, -12 * p * (1 - p) + 1.4)
