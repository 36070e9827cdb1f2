import pytest
import torch
from torch.distributions import Bernoulli

from zoo.inference._bernoulli import bernoulli_log_prob

# Which torch raises itself, when forward-mode differentiation is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


@pytest.fixture
def logits():
    return torch.linspace(-12, 12, 24, dtype=torch.double).reshape(3, 8).requires_grad_()


@pytest.fixture
def units():
    return (torch.arange(24).reshape(3, 8) % 3 == 0).double()


def test_bernoulli_log_prob_equals_torch_distributions(logits, units):
    expected = Bernoulli(logits=logits).log_prob(units).sum(-1)
    torch.testing.assert_close(bernoulli_log_prob(logits, units), expected, rtol=1e-13, atol=1e-13)


def test_gradient_of_bernoulli_log_prob_equals_torch_distributions(logits, units):
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.double)
    ours, theirs = (
        torch.autograd.grad((weights * value).sum(), logits)[0]
        for value in (bernoulli_log_prob(logits, units), Bernoulli(logits=logits).log_prob(units).sum(-1))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_leading_dimensions_broadcast_and_the_gradient_is_summed_over_them(logits, units):
    shared = logits[:1]
    value = bernoulli_log_prob(shared, units)
    assert value.shape == (3,)
    (gradient,) = torch.autograd.grad(value.sum(), shared)
    torch.testing.assert_close(gradient, (units - shared.sigmoid()).sum(0, keepdim=True))


@pytest.mark.parametrize("size", [30.0, 80.0, 1e4])
def test_logits_of_any_size_lose_no_digits_in_single_precision(size):
    logits = torch.tensor([[size], [-size]])
    assert bernoulli_log_prob(logits, torch.ones(1)).tolist() == [0.0, -size]
    assert bernoulli_log_prob(logits, torch.zeros(1)).tolist() == [-size, 0.0]


def test_nan_logit_gives_nan():
    assert bernoulli_log_prob(torch.tensor([float("nan"), 0.0]), torch.zeros(2)).isnan()


def test_the_sum_over_many_units_is_exact_in_half_precision_too():
    logits = torch.zeros(784, dtype=torch.bfloat16, requires_grad=True)
    value = bernoulli_log_prob(logits, torch.ones(784, dtype=torch.bfloat16))
    assert value.item() == pytest.approx(784 * -0.6931472, rel=1e-6)
    value.backward()
    assert logits.grad.unique().tolist() == [0.5]


@pytest.mark.parametrize("shared", [False, True])
def test_second_derivatives_agree_with_finite_differences(logits, units, shared):
    logits = logits[:1].detach().requires_grad_() if shared else logits
    assert torch.autograd.gradgradcheck(lambda x: bernoulli_log_prob(x, units), logits)


def test_third_derivative_is_that_of_the_closed_form(units):
    logit = torch.tensor(0.3, dtype=torch.double)
    third = torch.func.grad(torch.func.grad(torch.func.grad(lambda x: bernoulli_log_prob(x[None], torch.ones(1)))))
    p = logit.sigmoid()
    torch.testing.assert_close(third(logit), -p * (1 - p) * (1 - 2 * p))


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd, torch.func.hessian, torch.func.vmap])
def test_transforms_of_torch_func_agree_with_the_library_s_log_probability(logits, units, transform):
    def theirs(x):
        return Bernoulli(logits=x, validate_args=False).log_prob(units[0]).sum(-1)

    found = transform(lambda x: bernoulli_log_prob(x, units[0]))(logits.detach())
    torch.testing.assert_close(found, transform(theirs)(logits.detach()))


def test_forward_mode_agrees_with_reverse_mode(logits, units):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits.detach(), torch.ones_like(units))
        tangent = torch.autograd.forward_ad.unpack_dual(bernoulli_log_prob(dual, units)).tangent
    torch.testing.assert_close(tangent, (units - logits.sigmoid()).sum(-1))
