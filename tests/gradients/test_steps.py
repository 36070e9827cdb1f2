"""A baseline that is used several times in a step never knows what the samples of that step have cost."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical
from torch.utils.checkpoint import checkpoint

from zoo.gradients import (
    Baseline,
    ConstantBaseline,
    MovingAverageBaseline,
    Reinforce,
    RunningStd,
    SumBaseline,
    gradient_moments,
)
from zoo.gradients._steps import running_states

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed
STEPS = 2


class LastMean(Baseline):
    """A baseline of a user's own, with a buffer of its own."""

    last: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(()))

    def predict(self, signal, context, mask):
        return self.last.to(signal.dtype)

    def update(self, signal, mask):
        self.last.copy_(signal.mean())


ESTIMATORS = {
    "moving average": lambda: Reinforce(MovingAverageBaseline()),
    "sum": lambda: Reinforce(SumBaseline(ConstantBaseline(0.5), MovingAverageBaseline(0.0))),
    "scale": lambda: Reinforce(scale=RunningStd(floor=1e-3)),
    "a baseline of one's own": lambda: Reinforce(LastMean()),
    "set later": lambda: set_later(Reinforce()),
    "copy": lambda: copy.deepcopy(Reinforce(MovingAverageBaseline())),
    "unpickled": lambda: pickle.loads(pickle.dumps(Reinforce(MovingAverageBaseline()))),
}


def set_later(estimator):
    estimator.baseline = MovingAverageBaseline()
    return estimator


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    """Each kind that learns from call to call, after a first step."""
    made = ESTIMATORS[request.param]().double()
    made(torch.zeros(2), torch.tensor([1.0, 4.0], dtype=torch.float64))
    made.end_step()
    return made


def cost(x):
    return x[0] + 2 * x[0] * x[1] + 1


def loss_at(t, theta, x, estimator):
    """One time step; its signal is the cost of all of them."""
    return estimator(Bernoulli(logits=theta[t]).log_prob(x[t]), cost(x)).loss


def summed(theta, x, estimator):
    loss = torch.stack([loss_at(t, theta, x, estimator) for t in range(STEPS)]).sum()
    return torch.autograd.grad(loss, theta)[0]


def one_backward_for_each(theta, x, estimator):
    return sum(torch.autograd.grad(loss_at(t, theta, x, estimator), theta)[0] for t in range(STEPS))


def checkpointed(reentrant):
    def gradient(theta, x, estimator):
        losses = [checkpoint(loss_at, t, theta, x, estimator, use_reentrant=reentrant) for t in range(STEPS)]
        theta.grad = None
        torch.stack(losses).sum().backward()
        return theta.grad.clone()

    return gradient


def after_a_look_without_gradients(theta, x, estimator):
    with torch.no_grad():
        loss_at(0, theta, x, estimator)
    return summed(theta, x, estimator)


def with_something_between(happen):
    def gradient(theta, x, estimator):
        first = loss_at(0, theta, x, estimator)
        happen(estimator, cost(x))
        return torch.autograd.grad(first + loss_at(1, theta, x, estimator), theta)[0]

    return gradient


def after_something(happen):
    def gradient(theta, x, estimator):
        happen(estimator, cost(x))
        return summed(theta, x, estimator)

    return gradient


def score_a_forced_action(estimator, signal):
    estimator(torch.zeros(()), signal)


def train_a_critic(*_):
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()


def train_a_critic_in_another_thread(*_):
    thread = threading.Thread(target=train_a_critic)
    thread.start()
    thread.join()


def evaluate_then_train_a_critic(estimator, signal):
    with torch.no_grad():
        score_a_forced_action(estimator, signal)
    train_a_critic()


EVENTS = {
    "a forced action": score_a_forced_action,
    "a critic's optimizer": train_a_critic,
    "another thread's optimizer": train_a_critic_in_another_thread,
    "a forced action and a critic's optimizer": evaluate_then_train_a_critic,
    "its own state loaded": lambda estimator, _: estimator.load_state_dict(estimator.state_dict()),
    "a cast": lambda estimator, _: estimator.double(),
    "eval mode": lambda estimator, _: estimator.eval(),
}

PROGRAMS = {
    **{f"{name} between": with_something_between(happen) for name, happen in EVENTS.items()},
    **{f"{name} before": after_something(happen) for name, happen in EVENTS.items()},
    "one backward pass": summed,
    "a backward pass for each": one_backward_for_each,
    "checkpoint": checkpointed(False),
    "reentrant checkpoint": checkpointed(True),
    "no_grad before": after_a_look_without_gradients,
}


def outcomes(theta):
    for x in torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * STEPS):
        yield x, Bernoulli(logits=theta).log_prob(x).sum().exp()


@pytest.fixture
def theta():
    return torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_gradient_is_unbiased_with_a_call_for_each_time_step(estimator, theta, program):
    (exact,) = torch.autograd.grad(sum(p * cost(x) for x, p in outcomes(theta)), theta)
    factor = 1.0 if estimator.scale is None else estimator.scale.value
    found = torch.zeros_like(theta)
    for x, probability in outcomes(theta):
        found += probability.detach() * PROGRAMS[program](theta, x, copy.deepcopy(estimator)) * factor
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)


def test_learning_at_each_call_is_detected_as_bias(theta):
    (exact,) = torch.autograd.grad(sum(p * cost(x) for x, p in outcomes(theta)), theta)
    found = torch.zeros_like(theta)
    for x, probability in outcomes(theta):
        estimator = Reinforce(MovingAverageBaseline()).double()
        losses = []
        for t in range(STEPS):
            losses.append(loss_at(t, theta, x, estimator))
            estimator.end_step()
        found += probability.detach() * torch.autograd.grad(torch.stack(losses).sum(), theta)[0]
    assert (found - exact).abs().max() > 1e-2


def move_by_sgd(theta, gradient=None):
    if gradient is not None:
        theta.grad = torch.full_like(theta, gradient)
    torch.optim.SGD([theta], lr=0.1).step()
    return theta


def move_data(theta):
    """As optimizers do that write to ``.data``, which autograd does not see."""

    class Optimizer(torch.optim.Optimizer):
        def step(self):
            theta.data -= 0.1 * theta.grad

    Optimizer([theta], {}).step()
    return theta


def move_in_place(theta):
    with torch.no_grad():
        theta -= 0.1 * theta.grad
    return theta


def replace(theta):
    return (theta - 0.1 * theta.grad).detach().requires_grad_()


@pytest.mark.parametrize("move", [move_by_sgd, move_data, move_in_place, replace])
def test_several_calls_in_a_step_equal_one_call_with_all_samples(move):
    several, one = (Reinforce(MovingAverageBaseline(), RunningStd(floor=0.1)) for _ in range(2))
    parts, whole = (torch.zeros(3, requires_grad=True) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        signals = [torch.randn(size, generator=generator) + 2 for size in (3, 1, 3)]
        outs = [several(parts[: len(signal)] * 1, signal) for signal in signals]
        out = one(torch.cat([whole[: len(signal)] * 1 for signal in signals]), torch.cat(signals))
        for name in ("loss", "advantage", "baseline"):
            torch.testing.assert_close(torch.cat([getattr(each, name) for each in outs]), getattr(out, name))
        (torch.cat([each.loss for each in outs]).sum() + out.loss.sum()).backward()
        del outs, out
        parts, whole = move(parts), move(whole)
    for x, expected in zip(several.state_dict().values(), one.state_dict().values(), strict=True):
        torch.testing.assert_close(x, expected)
    assert one.baseline.mean.weight > 0.3


def test_run_resumed_from_the_state_dict_continues_exactly(theta):
    def step(estimator, signal):
        out = estimator(theta * 1, torch.tensor([signal, 1.0]))
        torch.optim.SGD([theta], lr=0.0).step()
        return out.baseline

    run = Reinforce(MovingAverageBaseline(), RunningStd())
    for signal in (2.0, 7.0):
        step(run, signal)
    resumed = Reinforce(MovingAverageBaseline(), RunningStd())
    resumed(theta * 1, torch.tensor([50.0, 60.0]))  # in the midst of a step
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    for signal in (-3.0, 4.0):
        assert torch.equal(step(resumed, signal), step(run, signal))


def test_gradient_moments_do_not_change_the_step(theta):
    estimator = Reinforce(MovingAverageBaseline(0.0))
    estimator(theta * 1, 5.0)
    loss = lambda: estimator(theta * 1, torch.randn(2)).loss.sum()  # noqa: E731
    gradient_moments(loss, [theta], num_samples=4, modules=[estimator])
    assert estimator(theta * 1, 7.0).baseline.tolist() == [0, 0]
    estimator.end_step()
    assert estimator(theta * 1, 0.0).baseline.tolist() == [6, 6]


def test_calls_without_gradient_belong_to_the_step_until_end_step():
    estimator, baselines = Reinforce(MovingAverageBaseline(0.0)), []
    for x in (1.0, 2.0, 3.0):
        baselines += [estimator(torch.zeros(1), x).baseline.item() for _ in range(2)]
        estimator.end_step()
    assert baselines == [0, 0, 1, 1, 2, 2]


def test_the_optimizer_that_holds_one_of_two_policies_ends_the_step(theta):
    estimator, unused = Reinforce(MovingAverageBaseline(0.0)), torch.zeros(1, requires_grad=True)
    critic, actor = (torch.optim.SGD([x], lr=0.1) for x in (unused, theta))
    baselines = []
    for x in (1.0, 2.0, 3.0):
        estimator(torch.zeros(2), x)
        theta.grad, unused.grad = torch.ones_like(theta), torch.ones_like(unused)
        critic.step()
        baselines.append(estimator(theta * 1, x).baseline[0].item())
        actor.step()
    assert baselines == [0, 1, 2]


def test_sparse_parameters_end_the_step():
    embedding, estimator = nn.Embedding(3, 2, sparse=True), Reinforce(MovingAverageBaseline(0.0))
    optimizer, baselines = torch.optim.SparseAdam(embedding.parameters()), []
    for x in (1.0, 2.0, 3.0):
        out = estimator(Categorical(logits=embedding(torch.tensor(1))).log_prob(torch.tensor(0)), x)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        baselines.append(out.baseline.item())
    assert baselines == [0, 1, 2]


def test_estimator_pickled_within_a_step_continues_the_step(theta):
    estimator = Reinforce(MovingAverageBaseline(0.0))
    estimator(theta * 1, 3.0)
    again = pickle.loads(pickle.dumps(estimator))
    assert again(theta * 1, 3.0).baseline.tolist() == [0, 0]
    move_by_sgd(theta, 1.0)
    assert again(theta * 1, 3.0).baseline.tolist() == [3, 3]


def test_copies_of_estimators_have_their_own_steps(theta):
    agent = nn.ModuleDict({"policy": nn.Linear(1, 1), "estimator": Reinforce(MovingAverageBaseline(0.0))})

    def call(agent, x):
        return agent["estimator"](agent["policy"](torch.ones(1)), x).baseline.item()

    call(agent, 3.0)
    other = copy.deepcopy(agent)
    assert call(other, 4.0) == 0
    for x in other["policy"].parameters():
        x.grad = torch.ones_like(x)
    torch.optim.SGD(other["policy"].parameters(), lr=0.1).step()
    assert (call(other, 0.0), call(agent, 0.0)) == (3.5, 0)


def test_loading_another_state_ends_the_step_and_its_own_does_not(theta):
    estimator = Reinforce(MovingAverageBaseline(0.0), RunningStd())
    estimator(theta * 1, 3.0)
    estimator.load_state_dict(estimator.state_dict())
    assert estimator(theta * 1, 3.0).baseline.tolist() == [0, 0]
    other = Reinforce(MovingAverageBaseline(0.0), RunningStd())
    other(theta * 1, 7.0)
    estimator.load_state_dict(other.state_dict())
    assert estimator(theta * 1, 3.0).baseline.tolist() == [7, 7]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_cast_within_a_step_casts_the_state_of_its_beginning(theta, dtype):
    estimator = Reinforce(LastMean() if dtype == torch.float64 else MovingAverageBaseline(0.0))
    estimator(theta * 1, 3.0)
    estimator.end_step()
    estimator(theta * 1, 5.0)
    estimator.to(dtype)
    out = estimator(theta * 1, 7.0)
    assert out.baseline.tolist() == [3, 3]
    estimator.end_step()
    assert estimator(theta * 1, 0.0).baseline[0] == (7 if dtype == torch.float64 else 6)


def test_baselines_outside_reinforce_advance_at_each_call():
    baseline = MovingAverageBaseline(0.0)
    assert [baseline(torch.tensor([x])).value.item() for x in (1.0, 2.0, 3.0)] == [0, 1, 2]


def test_any_optimizer_ends_the_step_of_compiled_estimators(theta):
    torch.compiler.reset()
    estimator = Reinforce(MovingAverageBaseline(0.0)).double()
    compiled = torch.compile(estimator, backend="eager", fullgraph=True)
    seen = []
    for step in range(3):
        for t in range(2):
            out = compiled(theta, torch.full((2,), 10.0 * step + t, dtype=torch.float64))
            seen.append(out.baseline[0].item())
        theta.grad = torch.zeros_like(theta)
        torch.optim.SGD([theta], lr=0.1).step()
    assert seen == [0, 0, 0.5, 0.5, 10.5, 10.5]


def test_unreferenced_estimators_are_freed():
    before = len(running_states)
    estimator = Reinforce(MovingAverageBaseline(), RunningStd())
    assert len(running_states) == before + 4  # the average, its mean, and the two of the scale
    del estimator
    assert len(running_states) == before


def test_stateless_baselines_have_no_steps():
    assert not Reinforce(SumBaseline(ConstantBaseline(1.0), Baseline()))._running_states
    assert Reinforce(LastMean())._running_states
