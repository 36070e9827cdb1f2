"""Small discrete programs, and their exact ELBO."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn
from torch.distributions import Categorical

from zoo.gradients import GradientMoments
from zoo.gradients._enumeration import moments_by_enumeration
from zoo.gradients._steps import preserve_buffers
from zoo.gradients.graphs._paths import Path, enumerate_paths
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.inference.elbo import _tracing
from zoo.inference.elbo._validation import validator

DATA = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def isolated(isolated_pyro) -> None: ...


class Program(NamedTuple):
    """Model and guide with one vector of parameters as argument."""

    model: Callable[[Tensor], None]
    guide: Callable[[Tensor], None]
    parameters: int
    particles: int = 2
    """Number of sequential particles whose outcomes can be enumerated."""


def bit(name, logits, **more):
    return pyro.sample(name, dist.Bernoulli(logits=logits), **more)


def chain() -> Program:
    """Two layers, and an independent third variable."""

    def model(theta):
        top = bit("top", theta[0])
        low = bit("low", theta[1] * top - 0.3)
        bit("apart", theta[2] + 1)
        bit("x", theta[0] + 2 * low - 1, obs=torch.tensor(1.0))

    def guide(theta):
        low = bit("low", theta[3])
        bit("top", theta[4] * low + 0.5)
        bit("apart", theta[5])

    return Program(model, guide, 6)


def branch() -> Program:
    """A sample determines which site is sampled next."""

    def model(theta):
        first = bit("first", theta[0])
        if first:
            second = bit("second", theta[1])
            bit("x", theta[0] + second, obs=torch.tensor(1.0))
        else:
            third = bit("third", -theta[1])
            level = [theta[2], 2 * theta[0]][int(third)]
            bit("x", level, obs=torch.tensor(0.0))

    def guide(theta):
        bit("second" if bit("first", theta[3]) else "third", theta[4])

    return Program(model, guide, 5)


def loop() -> Program:
    """A loop of random length."""

    def model(theta):
        heads = 0
        while heads < 3 and bit(f"coin {heads}", theta[0] - 0.1 * heads):
            heads += 1
        bit("x", theta[1] * heads - 1, obs=torch.tensor(1.0))

    def guide(theta):
        heads = 0
        while heads < 3 and bit(f"coin {heads}", theta[2 + heads]).item():
            heads += 1

    return Program(model, guide, 5)


def plates() -> Program:
    """A global and a local variable."""

    def model(theta):
        common = bit("common", theta[0])
        with pyro.plate("data", 2):
            z = bit("z", theta[1] + common)
            bit("x", theta[2] * z - common, obs=DATA[:2])

    def guide(theta):
        common = bit("common", theta[3])
        with pyro.plate("data", 2):
            bit("z", theta[4] * DATA[:2] + common)

    return Program(model, guide, 5)


def way_out() -> Program:
    """One element of a plate influences another through a variable outside."""

    def model(theta):
        common = bit("common", theta[0])
        with pyro.plate("data", 2):
            bit("z", theta[1] + common)
            bit("w", theta[2] - common, obs=DATA[:2])

    def guide(theta):
        with pyro.plate("data", 2):
            z = bit("z", theta[3] * DATA[:2])
        bit("common", theta[4] * z.sum(-1, keepdim=True) - 0.4)

    return Program(model, guide, 5)


def way_out_and_in() -> Program:
    """An element's score needs another element's term, because the path between them leaves the plate."""

    def model(theta):
        common = bit("common", theta[0])
        with pyro.plate("data", 2):
            bit("z", theta[1] + common)
            y = bit("y", theta[2] - common)
            bit("x", theta[2] * y, obs=DATA[:2])

    def guide(theta):
        data = pyro.plate("data", 2)
        with data:
            z = bit("z", theta[3] * DATA[:2])
        common = bit("common", theta[4] * z.sum(-1, keepdim=True) - 0.4)
        with data:
            bit("y", 2 * common - theta[3])

    return Program(model, guide, 5, particles=1)


def two_plates() -> Program:
    """A variable in each of two plates, one in both."""

    def model(theta):
        rows, columns = pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 2, dim=-1)
        with rows:
            a = bit("a", theta[0])
        with columns:
            b = bit("b", theta[1])
        with rows, columns:
            bit("x", theta[2] * a - b * theta[0], obs=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

    def guide(theta):
        with pyro.plate("rows", 2, dim=-2):
            bit("a", theta[3])
        with pyro.plate("columns", 2, dim=-1):
            bit("b", theta[4:6])

    return Program(model, guide, 6, particles=1)


def masks() -> Program:
    """Masked sites of model and guide, and missing data."""
    seen = torch.tensor([True, False])

    def model(theta):
        with pyro.plate("data", 2):
            with poutine.mask(mask=seen):
                z = bit("z", theta[0])
            pyro.sample("x", dist.Bernoulli(logits=theta[1] * z - 1), obs=DATA[:2], obs_mask=seen)

    def guide(theta):
        with pyro.plate("data", 2):
            with poutine.mask(mask=seen):
                z = bit("z", theta[2] * DATA[:2] + 0.2)
            with poutine.mask(mask=~seen):
                bit("x_unobserved", theta[3] - z)

    return Program(model, guide, 4, particles=1)


def hidden() -> Program:
    """Masked distributions, whose samples influence other sites."""

    def half_hidden(logits):
        return dist.Bernoulli(logits=logits).mask(torch.tensor([True, False])).to_event(1)

    def model(theta):
        a = pyro.sample("a", dist.Bernoulli(logits=theta[0]).mask(False))
        b = pyro.sample("b", half_hidden(theta[1].expand(2)))
        bit("x", a + b.sum(-1) * theta[0] - 1, obs=torch.tensor(1.0))

    def guide(theta):
        a = pyro.sample("a", dist.Bernoulli(logits=theta[2]).mask(False))
        pyro.sample("b", half_hidden(theta[3] * a.unsqueeze(-1).expand(*a.shape, 2)))

    return Program(model, guide, 4)


def scales() -> Program:
    """Scaled terms."""

    def model(theta):
        with poutine.scale(scale=3.0):
            z = bit("z", theta[0])
        with pyro.plate("data", 2), poutine.scale(scale=0.5):
            y = bit("y", theta[1] * z)
            bit("x", theta[2] * y, obs=DATA[:2])

    def guide(theta):
        with poutine.scale(scale=0.25):
            z = bit("z", theta[3])
        with pyro.plate("data", 2), poutine.scale(scale=2.0):
            bit("y", theta[4] + z)

    return Program(model, guide, 5)


def subsample(size: int | None = 1) -> Program:
    """A plate of three elements with a subsample of one."""

    def model(theta):
        common = bit("common", theta[0])
        with pyro.plate("data", 3, subsample_size=size) as index:
            z = bit("z", theta[1] * common)
            bit("x", theta[2] * z - 0.5, obs=DATA[index])

    def guide(theta):
        bit("common", theta[3])
        with pyro.plate("data", 3, subsample_size=size) as index:
            bit("z", theta[4] * DATA[index] - 0.2)

    return Program(model, guide, 5)


def one_by_one() -> Program:
    """A sequential plate with branches inside."""

    def model(theta):
        for i in pyro.plate("data", 2):
            if bit(f"z {i}", theta[0]):
                bit(f"x {i}", theta[1] + i, obs=DATA[i])
            else:
                bit(f"x {i}", theta[2] - i, obs=DATA[i])

    def guide(theta):
        for i in pyro.plate("data", 2):
            bit(f"z {i}", theta[3] * (i + 1))

    return Program(model, guide, 4)


def undeclared() -> Program:
    """A batch without plate whose size is the number of particles."""

    def model(theta):
        z = bit("z", theta[:2])
        bit("x", theta[0] * z - 0.4, obs=DATA[:2])
        common = bit("common", theta[1])
        bit("y", common - 0.3, obs=DATA[1:])

    def guide(theta):
        bit("z", theta[2:4])
        bit("common", theta[2] * 0.3)

    return Program(model, guide, 4)


def undeclared_beside() -> Program:
    """A batch dimension without plate, to the left of a plate."""

    def model(theta):
        with pyro.plate("data", 2):
            z = bit("z", theta[0] + torch.zeros(2, 1))
            bit("x", theta[1] * z.sum(-2, keepdim=True) - 0.4, obs=DATA[:2])

    def guide(theta):
        with pyro.plate("data", 2):
            bit("z", theta[2:].reshape(2, 2))

    return Program(model, guide, 6)


class ByPython(dist.TorchDistribution):
    """A Bernoulli distribution whose log-probability is computed without torch."""

    arg_constraints: ClassVar = {}
    support = dist.constraints.boolean

    def __init__(self, logits):
        self.logits = logits
        super().__init__(logits.shape)

    def log_prob(self, value):
        signs = (2 * value - 1).tolist()
        logits = self.logits.tolist()
        return torch.tensor([-math.log1p(math.exp(-s * x)) for s, x in zip(signs, logits, strict=True)])


def python() -> Program:
    """A likelihood that converts all elements of a plate to Python objects."""

    def model(theta):
        with pyro.plate("data", 2):
            z = bit("z", theta[0])
            pyro.sample("x", ByPython(2 * z + z.flip(-1) - 1), obs=DATA[:2])

    def guide(theta):
        with pyro.plate("data", 2):
            bit("z", theta[1:] * DATA[:2] + 0.4)

    return Program(model, guide, 3)


def beside_a_path() -> Program:
    """Pathwise sites before and after one without."""

    def model(theta):
        before = pyro.sample("before", dist.Normal(0.0, 1.0))
        z = bit("z", theta[0] * before)
        behind = pyro.sample("behind", dist.Normal(z, 1.0))
        with pyro.plate("data", 2):
            bit("x", theta[1] * behind + before, obs=DATA[:2])

    def guide(theta):
        before = pyro.sample("before", dist.Delta(theta[2]))
        z = bit("z", theta[3] * before)
        pyro.sample("behind", dist.Delta(theta[4] * (z + 0.5) + theta[2]))

    return Program(model, guide, 5)


def categories() -> Program:
    """A categorical variable used as an index, and a binary one that is compared."""

    def model(theta):
        k = pyro.sample("k", dist.Categorical(logits=theta[:3]))
        b = bit("b", theta[k])
        pyro.factor("f", torch.where(b > 0.5, theta[0], -theta[1]))
        bit("x", theta[0] * 1.0, obs=torch.tensor(1.0))

    def guide(theta):
        k = pyro.sample("k", dist.Categorical(probs=torch.stack([theta[3], theta[4], 0.3 * theta[5]]).exp()))
        bit("b", theta[torch.clamp(k, max=1) + 4])

    return Program(model, guide, 6)


def informed(net) -> Program:
    """A site that specifies a network and its input as baseline."""

    def model(theta):
        with pyro.plate("data", 2):
            z = bit("z", theta[0])
            bit("x", theta[1] * z - 1, obs=DATA[:2])

    def guide(theta):
        options = {"nn_baseline": net, "nn_baseline_input": DATA[:2, None], "use_decaying_avg_baseline": True}
        with pyro.plate("data", 2):
            bit("z", theta[2] * DATA[:2] - 0.3, infer={"baseline": options})

    return Program(model, guide, 3)


STATIC = (chain, plates, way_out, hidden, scales, subsample, beside_a_path, categories, undeclared)
LARGE = (way_out_and_in, two_plates, masks, undeclared_beside)
"""Also static, with too many outcomes for two particles."""
DYNAMIC = (branch, loop, one_by_one, python)


def arrangements_of(plate: _Subsample) -> list[tuple[int, ...]]:
    """All subsamples of a plate, in any order."""
    if plate.subsample_size is None:
        return [tuple(range(plate.size))]
    return list(itertools.permutations(range(plate.size), plate.subsample_size))


class PathMessenger(Messenger):
    """Replaces samples by the values of a path, and computes their probability."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.log_prob = torch.zeros(())

    def _pyro_sample(self, message):
        distribution = message["fn"]
        if message["is_observed"] or message["done"]:
            return
        if isinstance(distribution, _Subsample):
            arrangements = arrangements_of(distribution)
            message["value"] = torch.tensor(arrangements[self.path.choose(message["name"], len(arrangements))])
            self.log_prob = self.log_prob - torch.tensor(float(len(arrangements))).log()
        elif not distribution.has_rsample:
            while hasattr(distribution, "base_dist"):
                distribution = distribution.base_dist
            each, shape = distribution.enumerate_support(expand=False).flatten(), distribution.batch_shape
            joint = list(itertools.product(each, repeat=shape.numel()))
            message["value"] = torch.stack(joint[self.path.choose(message["name"], len(joint))]).reshape(shape)
            self.log_prob = self.log_prob + distribution.log_prob(message["value"]).sum()


def all_outcomes(program: Program, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Probability and ``log p - log q`` of all outcomes of the guide, computed by Pyro's own traces."""

    def outcome(path: Path) -> tuple[Tensor, Tensor]:
        messenger = PathMessenger(path)
        guide = poutine.trace(messenger(program.guide)).get_trace(theta)
        model = poutine.trace(poutine.replay(program.model, guide)).get_trace(theta)
        return messenger.log_prob.exp(), model.log_prob_sum() - guide.log_prob_sum()

    return list(enumerate_paths(outcome, 5000, "changed its mind"))


def exact_elbo(program: Program, theta: Tensor) -> Tensor:
    return torch.stack([probability * weight for probability, weight in all_outcomes(program, theta)]).sum()


@contextmanager
def drawn_by(draw) -> Iterator[None]:
    """Replace all randomness by a function of a name and a distribution."""

    def replaced(name, distribution):
        if isinstance(distribution, _Subsample):
            arrangements = torch.tensor(
                list(itertools.permutations(range(distribution.size), distribution.subsample_size))
            )
            return arrangements[draw(name, Categorical(torch.ones(len(arrangements))))]
        while isinstance(distribution, dist.MaskedDistribution):
            distribution = distribution.base_dist
        return distribution.rsample() if distribution.has_rsample else draw(name, unmasked(distribution))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tracing, "draw", replaced)
        patch.setattr(
            validator, "check_particles_independent", lambda *_: None
        )  # whose samples are not part of the estimate
        yield


def unmasked(distribution):
    """Remove masks, which do not affect samples."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def parameters_of(program: Program) -> Tensor:
    return (torch.randn(program.parameters, generator=torch.Generator().manual_seed(1)) * 0.7).requires_grad_()


@pytest.fixture(
    params=[*STATIC, *LARGE[:-1], pytest.param(LARGE[-1], marks=pytest.mark.slow), *DYNAMIC],
    ids=lambda make: make.__name__,
)
def program(request) -> Program:
    return request.param()


@pytest.fixture(
    params=[*STATIC, *(pytest.param(make, marks=pytest.mark.slow) for make in LARGE)], ids=lambda make: make.__name__
)
def static_program(request) -> Program:
    """A program whose control flow is static."""
    return request.param()


@pytest.fixture(params=DYNAMIC, ids=lambda make: make.__name__)
def dynamic_program(request) -> Program:
    """A program whose control flow depends on samples."""
    return request.param()


@pytest.fixture
def programs() -> dict[str, Callable[..., Program]]:
    """Constructors of all programs."""
    return {make.__name__: make for make in (*STATIC, *LARGE, *DYNAMIC, informed)}


@pytest.fixture
def parameters() -> Callable[[Program], Tensor]:
    """Return the parameters of a program, always the same."""
    return parameters_of


@pytest.fixture
def exact_gradient() -> Callable[[Program, Tensor], Tensor]:
    """Gradient of a program's negative ELBO."""

    def gradient(program: Program, theta: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(-exact_elbo(program, theta), theta)
        return found

    return gradient


@pytest.fixture
def outcomes_of() -> Callable[[Program, Tensor], list[tuple[Tensor, Tensor]]]:
    """Probabilities and log-weights of all outcomes of a program."""
    return all_outcomes


@pytest.fixture
def moments() -> Callable[[ELBO, Program, Tensor], GradientMoments]:
    """Mean and variance of a gradient estimate over all outcomes."""

    def exact(elbo: ELBO, program: Program, theta: Tensor) -> GradientMoments:
        modules = [elbo] if isinstance(elbo, nn.Module) else []

        def estimate(draw) -> Tensor:
            with drawn_by(draw), preserve_buffers(modules):
                return elbo.differentiable_loss(program.model, program.guide, theta)

        return moments_by_enumeration(estimate, Quadrature(), [theta], max_outcomes=20_000)

    return exact


@pytest.fixture
def bias(
    parameters: Callable[[Program], Tensor],
    exact_gradient: Callable[[Program, Tensor], Tensor],
    moments: Callable[[ELBO, Program, Tensor], GradientMoments],
) -> Callable[..., float]:
    """Largest error of the expected gradient, after some training of the baselines."""

    def largest(elbo, program, of=None) -> float:
        theta = parameters(program)
        for _ in range(3):
            elbo.differentiable_loss(program.model, program.guide, theta)
        (found,) = moments(elbo, program, theta).parameters
        return (found.mean - exact_gradient(of or program, theta)).abs().max().item()

    return largest


def trace_once(model, guide, *args) -> _tracing.Run:
    return _tracing.trace_model_and_guide(_tracing.ModelGuideCall(model, guide, args), {})


@pytest.fixture
def run_once() -> Callable[..., _tracing.Run]:
    """Trace a guide and its model once."""
    return trace_once
