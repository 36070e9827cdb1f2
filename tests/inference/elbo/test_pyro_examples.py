"""Programs as in Pyro's tutorials, with ``BlackBoxELBO`` instead of ``pyro.infer.Trace_ELBO``.

With the same random numbers the loss is the same, and so is the gradient where all sites of the guide have a pathwise
gradient. The gradient of a site with a score has a lower variance; other tests compare expectations.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.contrib.autoname import scope
from pyro.contrib.conjugate.infer import BetaBinomialPair
from pyro.contrib.easyguide import EasyGuide
from pyro.contrib.forecast import ForecastingModel
from pyro.contrib.mue.models import ProfileHMM
from pyro.contrib.timeseries import IndependentMaternGP
from pyro.contrib.tracking.assignment import MarginalAssignment
from pyro.distributions.transforms import Spline, affine_autoregressive, iterated, planar
from pyro.infer import SVI, Predictive, Trace_ELBO, autoguide, config_enumerate, reparam
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoNormal
from pyro.infer.reparam.unit_jacobian import UnitJacobianReparam
from pyro.nn import PyroModule, PyroParam, PyroSample, pyro_method
from pyro.optim.multi import MixedMultiOptimizer, Newton, PyroMultiOptimizer, TorchMultiOptimizer
from torch import nn
from torch.distributions import constraints
from torch.distributions.transforms import AffineTransform
from torch.nn.functional import softplus

from zoo.inference.elbo import BlackBoxELBO

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pyro"),
    pytest.mark.filterwarnings("ignore::FutureWarning:pyro"),
    pytest.mark.filterwarnings("ignore:site .* is outside every plate"),
]


class Example(NamedTuple):
    """A model with its guide and the arguments of both."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...] = ()


PATHWISE: dict[str, Callable[[], Example]] = {}
"""Programs all of whose sites have a pathwise gradient."""
SCORED: dict[str, Callable[[], Example]] = {}
"""Programs with sites that have none."""


def pathwise(make):
    PATHWISE[make.__name__] = make
    return make


def scored(make):
    SCORED[make.__name__] = make
    return make


# Hierarchical regression


def schools():
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("schools", 8):
        effect = pyro.sample("effect", dist.Normal(mean, spread))
        pyro.sample("measured", dist.Normal(effect, errors), obs=effects)


def constrained():
    """Latent variables of several supports, inside and outside of a plate."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("data", 5):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        pyro.sample("x", dist.Normal(mean.sum() + rate * share[..., 0], 0.1 + spread), obs=torch.arange(5.0))


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        spread = pyro.sample("spread", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, spread), obs=y)


def regression_data():
    x = torch.randn(12, 3)
    return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3


AUTOMATIC = {
    **{
        name: getattr(autoguide, name)
        for name in (
            "AutoDelta",
            "AutoNormal",
            "AutoDiagonalNormal",
            "AutoMultivariateNormal",
            "AutoLowRankMultivariateNormal",
            "AutoLaplaceApproximation",
            "AutoStructured",
            "AutoGaussian",
            "AutoNormalMessenger",
            "AutoHierarchicalNormalMessenger",
            "AutoRegressiveMessenger",
        )
    },
    "AutoIAFNormal": lambda model: autoguide.AutoIAFNormal(model, hidden_dim=[24]),
    "AutoNormalizingFlow": lambda model: autoguide.AutoNormalizingFlow(
        model, lambda dim: iterated(2, affine_autoregressive, dim)
    ),
}
for kind, make_guide in AUTOMATIC.items():
    PATHWISE[f"{kind} of constrained variables"] = lambda make=make_guide: Example(constrained, make(constrained))
    PATHWISE[f"{kind} of a regression"] = lambda make=make_guide: (
        lambda model: Example(model, make(model), regression_data())
    )(Regression())


@pathwise
def a_list_of_automatic_guides():
    guide = AutoGuideList(schools)
    guide.append(AutoDiagonalNormal(poutine.block(schools, expose=["mean", "spread"])))
    guide.append(AutoNormal(poutine.block(schools, expose=["effect"])))
    return Example(schools, guide)


@pathwise
def an_easy_guide():
    class Guide(EasyGuide):
        def guide(self):
            self.map_estimate("mean")
            pyro.sample("spread", dist.LogNormal(pyro.param("spread_loc", torch.tensor(0.0)), 1.0))
            with self.plate("schools", 8):
                pyro.sample("effect", dist.Normal(pyro.param("locs", torch.zeros(8)), 1.0))

    return Example(schools, Guide(schools))


# Bayesian neural networks


@pathwise
def bayesian_network():
    class Network(PyroModule):
        def __init__(self):
            super().__init__()
            self.spread = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
            self.hidden = PyroModule[nn.Linear](3, 4)
            self.hidden.weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 3]).to_event(2))
            self.out = PyroSample(lambda self: dist.Normal(0.0, self.spread).expand([4]).to_event(1))

        def forward(self, x, y):
            mean = torch.tanh(self.hidden(x)) @ self.out
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    model = Network()
    return Example(model, autoguide.AutoLowRankMultivariateNormal(model), regression_data())


@pathwise
def random_module():
    network = nn.Linear(3, 1)

    def model(x, y):
        priors = {"weight": dist.Normal(torch.zeros(1, 3), 1.0).to_event(2), "bias": dist.Normal(torch.zeros(1), 1.0)}
        lifted = pyro.random_module("network", network, {**priors, "bias": priors["bias"].to_event(1)})()
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(lifted(x).squeeze(-1), 1.0), obs=y)

    return Example(model, AutoNormal(model), regression_data())


@pathwise
def methods_of_a_module():
    class Module(PyroModule):
        def __init__(self):
            super().__init__()
            self.prior = PyroParam(torch.tensor(0.5))

        @PyroParam
        def loc(self):
            return torch.tensor(0.1)

        @pyro_method
        def model(self):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(self.prior, 1.0)), 1.0), obs=torch.tensor(1.0))

        @pyro_method
        def guide(self):
            pyro.sample("z", dist.Normal(self.loc, 1.0))

    module = Module()
    return Example(module.model, module.guide)


# Variational autoencoders

PIXELS, LATENT, CLASSES = 6, 2, 3


class Autoencoder(nn.Module):
    def __init__(self, condition=0):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, 8), nn.Softplus(), nn.Linear(8, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT + condition, 8), nn.Softplus(), nn.Linear(8, PIXELS))
        self.classifier = nn.Linear(PIXELS, CLASSES)

    def encoded(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoded(x))


def images(number=7):
    return torch.bernoulli(torch.full((number, PIXELS), 0.5))


@pathwise
def autoencoder():
    networks = Autoencoder()
    return Example(networks.model, networks.guide, (images(),))


@pathwise
def autoencoder_with_a_flow():
    networks, flow = Autoencoder(), planar(LATENT)

    def guide(x):
        pyro.module("encoder", networks.encoder)
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(networks.encoded(x), [flow]))

    return Example(networks.model, guide, (images(),))


def semi_supervised(*labels):
    networks = Autoencoder(condition=CLASSES)

    def model(x, y=None):
        pyro.module("decoder", networks.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(len(x), CLASSES)), obs=y)
            pyro.sample("x", dist.Bernoulli(logits=networks.decoder(torch.cat([z, y], -1))).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("networks", networks)
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", dist.OneHotCategorical(logits=networks.classifier(x)))
            pyro.sample("z", networks.encoded(x))

    return Example(model, guide, (images(), *labels))


@pathwise
def semi_supervised_autoencoder_with_labels():
    return semi_supervised(torch.eye(CLASSES)[torch.tensor([0, 1, 2, 0, 1, 2, 0])])


@scored
def semi_supervised_autoencoder_without_labels():
    return semi_supervised()


@pathwise
def deep_markov_model():
    """Sequences of different length, with annealing of the latent variables' terms."""
    transition, emission = nn.Linear(2, 4), nn.Linear(2, 3)
    recurrent, combiner = nn.GRU(3, 4, batch_first=True), nn.Linear(6, 4)
    x = torch.bernoulli(torch.full((5, 6, 3), 0.5))
    there = torch.arange(6) < torch.tensor([[6], [4], [3], [6], [2]])

    def normal(network, inputs):
        loc, log_scale = network(inputs).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp())

    def model(annealing):
        pyro.module("transition", transition)
        pyro.module("emission", emission)
        z = torch.zeros(5, 2)
        with pyro.plate("sequences", 5):
            for t in pyro.markov(range(6)):
                mask = there[:, t : t + 1]
                with poutine.scale(scale=annealing):
                    z = pyro.sample(f"z_{t}", normal(transition, z).mask(mask).to_event(1))
                pyro.sample(f"x_{t}", dist.Bernoulli(logits=emission(z)).mask(mask).to_event(1), obs=x[:, t])

    def guide(annealing):
        pyro.module("recurrent", recurrent)
        pyro.module("combiner", combiner)
        hidden, z = recurrent(x)[0], torch.zeros(5, 2)
        with pyro.plate("sequences", 5):
            for t in pyro.markov(range(6)):
                with poutine.scale(scale=annealing):
                    found = normal(combiner, torch.cat([z, hidden[:, t]], -1)).mask(there[:, t : t + 1])
                    z = pyro.sample(f"z_{t}", found.to_event(1))

    return Example(model, guide, (0.5,))


@scored
def attend_infer_repeat():
    """The number of objects is sampled; only the guide subsamples the images, and it specifies baselines."""
    encoder, decoder, baseline = nn.Linear(9, 5), nn.Linear(2, 9), nn.Linear(9, 1)
    data = torch.rand(10, 9)

    def model(batch_size):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(data)) as i:
            batch = data[i]
            canvas, present = torch.zeros_like(batch), torch.ones(len(batch), 1)
            for t in range(3):
                present = pyro.sample(f"present_{t}", dist.Bernoulli(0.3 * present).to_event(1))
                what = dist.Normal(torch.zeros(len(batch), 2), 1.0).mask(present > 0).to_event(1)
                canvas = canvas + present * decoder(pyro.sample(f"what_{t}", what))
            pyro.sample("image", dist.Normal(canvas, 0.3).to_event(1), obs=batch)

    def guide(batch_size):
        pyro.module("encoder", encoder)
        pyro.module("baseline", baseline)
        with pyro.plate("data", len(data), subsample_size=batch_size) as i:
            present = torch.ones(len(i), 1)
            logits, loc, log_scale = encoder(data[i]).split([1, 2, 2], -1)
            for t in range(3):
                own = {"baseline": {"baseline_value": baseline(data[i]).squeeze(-1)}}
                present = dist.Bernoulli(logits.sigmoid() * present).to_event(1)
                present = pyro.sample(f"present_{t}", present, infer=own)
                pyro.sample(f"what_{t}", dist.Normal(loc, log_scale.exp()).mask(present > 0).to_event(1))

    return Example(model, guide, (4,))


@scored
def latent_dirichlet_allocation():
    """Words of documents, which only the guide subsamples."""
    words, topics, documents, length = 12, 3, 9, 5
    data, network = torch.randint(words, (length, documents)), nn.Linear(words, topics)

    def model():
        with pyro.plate("topics", topics):
            weights = pyro.sample("topic_weights", dist.Gamma(1.0, 1.0))
            of_topic = pyro.sample("topic_words", dist.Dirichlet(torch.ones(words)))
        with pyro.plate("documents", documents) as i:
            mixture = pyro.sample("document_topics", dist.Dirichlet(weights))
            with pyro.plate("words", length):
                topic = pyro.sample("word_topics", dist.Categorical(mixture))
                pyro.sample("words_seen", dist.Categorical(of_topic[topic]), obs=data[:, i])

    def guide():
        pyro.module("network", network)
        concentration = pyro.param("concentration", torch.ones(topics, words), constraint=constraints.positive)
        with pyro.plate("topics", topics):
            shape = pyro.param("shape", torch.ones(topics), constraint=constraints.positive)
            pyro.sample("topic_weights", dist.Gamma(shape, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(concentration))
        with pyro.plate("documents", documents, subsample_size=4) as i:
            counts = nn.functional.one_hot(data[:, i], words).sum(0).to(concentration)
            mixture = pyro.sample("document_topics", dist.Dirichlet(softplus(network(counts)) + 0.5))
            with pyro.plate("words", length):
                pyro.sample("word_topics", dist.Categorical(mixture))

    return Example(model, guide)


# Gaussian processes


def gp_data():
    x = torch.linspace(0.0, 3.0, 8)
    return x, x.sin(), (x.sin() > 0.5).to(x)


LIKELIHOODS = {
    "classification": (gp.likelihoods.Binary, ()),
    "several classes": (lambda: gp.likelihoods.MultiClass(2), (2,)),
    "counts": (gp.likelihoods.Poisson, ()),
}


def gaussian_process(likelihood, shape):
    x, _, y = gp_data()
    kernel = gp.kernels.RBF(1)
    process = gp.models.VariationalGP(x, y, kernel, likelihood(), latent_shape=torch.Size(shape), whiten=True)
    return Example(process.model, process.guide)


for name, options in LIKELIHOODS.items():
    PATHWISE[f"a Gaussian process of {name}"] = lambda options=options: gaussian_process(*options)


@pathwise
def sparse_variational_gaussian_process():
    x, y, _ = gp_data()
    process = gp.models.VariationalSparseGP(
        x, y, gp.kernels.Matern52(1), x[::2].clone(), gp.likelihoods.Gaussian(), num_data=16
    )
    return Example(process.model, process.guide)


@pathwise
def gaussian_process_with_priors():
    x, y, _ = gp_data()
    kernel = gp.kernels.RBF(1)
    for parameter in ("lengthscale", "variance"):
        setattr(kernel, parameter, PyroSample(dist.LogNormal(0.0, 1.0)))
        kernel.autoguide(parameter, dist.Normal)
    process = gp.models.GPRegression(x, y, kernel)
    return Example(process.model, process.guide)


@pathwise
def gaussian_process_with_latent_inputs():
    process = gp.models.SparseGPRegression(torch.randn(6, 2), torch.randn(3, 6), gp.kernels.RBF(2), torch.randn(3, 2))
    process.X = PyroSample(dist.Normal(torch.zeros(6, 2), 1.0).to_event())
    process.autoguide("X", dist.Normal)
    return Example(process.model, process.guide)


# Time series


@pathwise
def forecasting():
    class Trend(ForecastingModel):
        def model(self, zero_data, covariates):
            weight = pyro.sample("weight", dist.Normal(0.0, 0.1))
            scale = pyro.sample("scale", dist.LogNormal(-1.0, 1.0))
            with self.time_plate:
                drift = pyro.sample("drift", dist.Normal(0.0, scale))
            level = drift.cumsum(-1).unsqueeze(-1)
            self.predict(dist.Normal(torch.zeros(1), 1.0), level + weight * covariates)

    model = Trend()
    return Example(model, AutoNormal(model), (torch.randn(6, 1), torch.ones(6, 1)))


@pathwise
def state_space_model_of_a_gaussian_process():
    process, y = IndependentMaternGP(nu=1.5, obs_dim=2), torch.randn(6, 2)

    def model():
        pyro.module("process", process)
        pyro.factor("y", process.log_prob(y).sum())

    return Example(model, lambda: None)


@pathwise
def hidden_markov_models_that_are_summed_out():
    unit = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))

    def model():
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        noise = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) * scale)
        linear = dist.GaussianHMM(unit, pyro.param("matrix", torch.eye(2)), noise, torch.eye(2), unit, duration=4)
        pyro.sample("x", linear, obs=torch.ones(4, 2))
        states = dist.Normal(torch.arange(2.0), 1.0)
        pyro.sample("y", dist.DiscreteHMM(torch.zeros(2), rows.log(), states, duration=5), obs=torch.arange(5.0))

    return Example(model, AutoNormal(model))


@pathwise
def profile_hidden_markov_model():
    """Sequences of letters, from pyro.contrib.mue."""
    model = ProfileHMM(5, 4)
    letters = torch.eye(4)[torch.tensor([[0, 0, 3, 3], [0, 1, 3, 3], [0, 0, 3, 2]])]
    return Example(model.model, model.guide, (letters, torch.tensor(1.0)))


@pathwise
def markov_chain_in_a_loop():
    def model():
        z = torch.tensor(0.0)
        for t in pyro.markov(range(4)):
            z = pyro.sample(f"z_{t}", dist.Normal(z, 1.0))
            pyro.sample(f"y_{t}", dist.Normal(z, 1.0), obs=torch.tensor(float(t)))

    return Example(model, autoguide.AutoMultivariateNormal(model))


# Mixtures, factors and others


@pathwise
def mixture_that_is_summed_out():
    def model():
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
        locs = pyro.sample("locs", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 5):
            mixture = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(locs, 1.0))
            pyro.sample("x", mixture, obs=torch.arange(5.0))

    return Example(model, AutoNormal(model))


@pathwise
def conjugate_pair():
    pair = BetaBinomialPair()

    def model():
        shape = pyro.sample("shape", dist.HalfNormal(1.0))
        with pyro.plate("data", 3):
            probability = pyro.sample("probability", pair.latent(shape, 2.0))
            counts = pair.conditional(total_count=10, probs=probability)
            pyro.sample("counts", counts, obs=torch.tensor([3.0, 4.0, 5.0]))

    return Example(model, AutoNormal(model))


@pathwise
def assignment_of_detections():
    """Belief propagation within the model, from pyro.contrib.tracking."""

    def model():
        exist = pyro.sample("exist", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        assignment = MarginalAssignment(exist, torch.zeros(4, 3) + exist, bp_iters=5)
        pyro.factor("found", assignment.exists_dist.probs.sum())

    return Example(model, AutoNormal(model))


@pathwise
def factors_in_model_and_guide():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("pull", -(pyro.deterministic("square", z**2)))

    def guide():
        half = pyro.sample("half", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(2 * half))
        pyro.factor("jacobian", torch.tensor(-math.log(2)), has_rsample=True)

    return Example(model, guide)


@pathwise
def spline_for_a_guide():
    spline = Spline(2)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def guide():
        pyro.module("spline", spline)
        pyro.sample("z", dist.TransformedDistribution(base, [spline]))

    return Example(lambda: pyro.sample("z", base), guide)


@pathwise
def data_that_are_missing():
    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 5):
            seen = torch.tensor([True, False, True, True, False])
            pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.arange(5.0), obs_mask=seen)

    return Example(model, AutoNormal(model))


@pathwise
def parameters_that_a_plate_subsamples():
    def model():
        with pyro.plate("data", 8, subsample_size=3):
            prior = pyro.param("priors", torch.zeros(8), event_dim=0)
            z = pyro.sample("z", dist.Normal(prior, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=pyro.subsample(torch.arange(8.0), event_dim=0))

    return Example(model, AutoNormal(model))


@pathwise
def scopes_of_names():
    @scope(prefix="first")
    def first():
        return pyro.sample("z", dist.Normal(0.0, 1.0))

    @scope(prefix="second")
    def second():
        return pyro.sample("z", dist.Normal(first(), 1.0))

    def model():
        pyro.sample("x", dist.Normal(second(), 1.0), obs=torch.tensor(1.0))

    return Example(model, AutoNormal(model))


@scored
def discrete_variables_of_an_automatic_guide():
    def model():
        probability = pyro.sample("probability", dist.Beta(2.0, 2.0))
        with pyro.plate("data", 4):
            kind = pyro.sample("kind", dist.Bernoulli(probability))
            pyro.sample("x", dist.Normal(kind, 1.0), obs=torch.tensor([0.0, 1.0, 2.0, 0.0]))

    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["probability"])))
    guide.append(autoguide.AutoDiscreteParallel(poutine.block(model, expose=["kind"])))
    return Example(model, guide)


@scored
def variables_that_the_guide_marks_for_enumeration():
    """Sites marked for enumeration are sampled, as by ``Trace_ELBO``."""

    def model():
        with pyro.plate("data", 5):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.arange(5.0))

    @config_enumerate
    def guide():
        with pyro.plate("data", 5):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(5))))

    return Example(model, guide)


@scored
def directions_without_a_path():
    def guide():
        pyro.sample("angle", dist.VonMises(pyro.param("loc", torch.tensor(0.1)), 2.0))

    return Example(lambda: pyro.sample("angle", dist.VonMises(0.0, 1.0)), guide)


# Effect handlers


def chain():
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    offset = pyro.sample("offset", dist.Normal(mean, 1.0))
    with pyro.plate("data", 5):
        z = pyro.sample("z", dist.Normal(mean + offset, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.arange(5.0))


HANDLERS = {
    "condition": lambda: poutine.condition(chain, {"offset": torch.tensor(0.5)}),
    "do": lambda: poutine.do(chain, {"offset": torch.tensor(0.5)}),
    "mask": lambda: poutine.mask(chain, mask=torch.tensor(True)),
    "scale": lambda: poutine.scale(chain, scale=0.3),
    "uncondition": lambda: poutine.uncondition(chain),
    "block": lambda: poutine.block(chain, hide=["offset"]),
    "infer_config": lambda: poutine.infer_config(chain, lambda site: {}),
    "broadcast": lambda: poutine.broadcast(chain),
    "equalize": lambda: poutine.equalize(chain, ["mean", "offset"]),
    "seed": lambda: poutine.seed(chain, 0),
    "lift": lambda: poutine.lift(parametrized, {"weight": dist.Normal(0.0, 1.0)}),
}


def parametrized():
    pyro.sample("x", dist.Normal(pyro.param("weight", torch.tensor(1.0)), 1.0), obs=torch.tensor(2.0))


for name, handled in HANDLERS.items():
    PATHWISE[f"poutine.{name}"] = lambda make=handled: (lambda model: Example(model, AutoNormal(model)))(make())


# Reparameterizations


def observed(latent, event_dim=0):
    """A model of one latent variable and a datum."""

    def model():
        z = pyro.sample("z", latent())
        pyro.sample("x", dist.Normal(z.sum(-1) if event_dim else z, 1.0), obs=torch.tensor(1.0))

    return model


def heavy_tailed_chain():
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    transition = dist.StudentT(torch.full((2,), 4.0), 0.0, 1.0).to_event(1)
    noise = dist.StudentT(torch.full((1,), 4.0), 0.0, scale).to_event(1)
    start = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    series = dist.LinearHMM(start, torch.eye(2), transition, torch.ones(2, 1), noise, duration=5)
    pyro.sample("x", series, obs=torch.arange(5.0).unsqueeze(-1))


def heavy_tailed_datum():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Stable(1.5, 0.0, 1.0, z), obs=torch.tensor(1.0))


VECTOR = observed(lambda: dist.Normal(torch.zeros(8), 1.0).to_event(1), event_dim=1)
STABLE = observed(lambda: dist.Stable(1.5, 0.1, 1.0, 0.0))
REPARAMETRIZED = {
    "LocScaleReparam": (schools, lambda: {"effect": reparam.LocScaleReparam(centered=0.0)}),
    "LocScaleReparam, learned": (schools, lambda: {"effect": reparam.LocScaleReparam()}),
    "MinimalReparam": (schools, reparam.MinimalReparam),
    "AutoReparam": (schools, reparam.AutoReparam),
    "TransformReparam": (observed(lambda: dist.LogNormal(0.0, 1.0)), lambda: {"z": reparam.TransformReparam()}),
    "DiscreteCosineReparam": (VECTOR, lambda: {"z": reparam.DiscreteCosineReparam()}),
    "HaarReparam": (VECTOR, lambda: {"z": reparam.HaarReparam()}),
    "SplitReparam": (VECTOR, lambda: {"z": reparam.SplitReparam([3, 5], -1)}),
    "UnitJacobianReparam": (VECTOR, lambda: {"z": UnitJacobianReparam(AffineTransform(1.0, 1.0))}),
    "LatentStableReparam": (STABLE, lambda: {"z": reparam.LatentStableReparam()}),
    "StableReparam": (STABLE, lambda: {"z": reparam.StableReparam()}),
    "SymmetricStableReparam": (heavy_tailed_datum, lambda: {"x": reparam.SymmetricStableReparam()}),
    "StudentTReparam": (observed(lambda: dist.StudentT(3.0, 0.0, 1.0)), lambda: {"z": reparam.StudentTReparam()}),
    "ProjectedNormalReparam": (
        observed(lambda: dist.ProjectedNormal(torch.ones(3)), event_dim=1),
        lambda: {"z": reparam.ProjectedNormalReparam()},
    ),
    "GumbelSoftmaxReparam": (
        observed(lambda: dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.arange(3.0)), event_dim=1),
        lambda: {"z": reparam.GumbelSoftmaxReparam()},
    ),
    "LinearHMMReparam": (
        heavy_tailed_chain,
        lambda: {"x": reparam.LinearHMMReparam(trans=reparam.StudentTReparam(), obs=reparam.StudentTReparam())},
    ),
}
for name, (model, config) in REPARAMETRIZED.items():
    PATHWISE[name] = lambda model=model, config=config: (lambda m: Example(m, AutoNormal(m)))(
        poutine.reparam(model, config=config())
    )


@pathwise
def neural_transport():
    guide = autoguide.AutoIAFNormal(schools, hidden_dim=[12])
    guide()
    model = reparam.NeuTraReparam(guide).reparam(schools)
    return Example(model, AutoNormal(model))


@pathwise
def reparameterization_by_a_structured_guide():
    guide = autoguide.AutoStructured(schools, conditionals="normal", dependencies="linear")
    guide()
    model = reparam.StructuredReparam(guide).reparam(schools)
    return Example(model, AutoNormal(model))


@pathwise
def conjugate_updates():
    counts = torch.tensor([3.0, 4.0, 5.0])

    def model():
        with pyro.plate("data", 3):
            probability = pyro.sample("probability", dist.Beta(2.0, pyro.param("shape", torch.tensor(2.0))))
            pyro.sample("counts", dist.Binomial(20, probability), obs=counts)

    update = reparam.ConjugateReparam(dist.Beta(1 + counts, 21 - counts))
    return Example(poutine.reparam(model, config={"probability": update}), lambda: None)


def is_slow(name):
    """A regression with each automatic guide would take as long as all other programs."""
    return name.endswith("of a regression") and not name.startswith(("AutoNormal ", "AutoDelta "))


def loss_and_gradient(make, elbo):
    """Loss, and gradients by parameter name, of the second run with fixed random numbers."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, args = make()
    elbo.loss_and_grads(model, guide, *args)  # creates the parameters
    for parameter in dict(pyro.get_param_store().named_parameters()).values():
        parameter.grad = None
    pyro.set_rng_seed(1)
    loss = elbo.loss_and_grads(model, guide, *args)
    return loss, {name: x.grad for name, x in pyro.get_param_store().named_parameters() if x.grad is not None}


@pytest.mark.filterwarnings("ignore:values of 'x_exponential'")  # SymmetricStableReparam has an assert on them
@pytest.mark.filterwarnings("ignore:values of 'exist'")  # MarginalAssignment branches on its inputs
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if is_slow(name) else ()) for name in PATHWISE]
)
def test_loss_and_gradient_of_pathwise_programs_equal_those_of_trace_elbo(name):
    ours, our_gradients = loss_and_gradient(PATHWISE[name], BlackBoxELBO())
    theirs, their_gradients = loss_and_gradient(PATHWISE[name], Trace_ELBO())
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert sum(gradient.abs().sum() for gradient in their_gradients.values()) > 0
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SCORED)
def test_loss_of_programs_with_a_score_equals_that_of_trace_elbo(name):
    ours, our_gradients = loss_and_gradient(SCORED[name], BlackBoxELBO())
    theirs, their_gradients = loss_and_gradient(SCORED[name], Trace_ELBO())
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert our_gradients.keys() >= their_gradients.keys()  # without baselines in Trace_ELBO


PARTICLES = ["AutoNormal of constrained variables", "autoencoder", "deep_markov_model", "LocScaleReparam"]


@pytest.mark.parametrize("name", PARTICLES)
def test_several_particles_equal_those_of_trace_elbo(name):
    ours = loss_and_gradient(PATHWISE[name], BlackBoxELBO(num_particles=3))
    torch.testing.assert_close(
        ours, loss_and_gradient(PATHWISE[name], Trace_ELBO(num_particles=3)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", ["autoencoder", "LocScaleReparam", "poutine.lift", "mixture_that_is_summed_out"])
def test_vectorized_particles_equal_those_of_trace_elbo(name):
    options = {"num_particles": 3, "vectorize_particles": True}
    theirs = loss_and_gradient(PATHWISE[name], Trace_ELBO(**options, max_plate_nesting=1))
    ours = loss_and_gradient(PATHWISE[name], BlackBoxELBO(**options, max_plate_nesting=1))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.1, "clip_norm": 1.0, "lrd": 0.9}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({}),
    "DCTAdam": lambda: pyro.optim.DCTAdam({}),
    "SGD": lambda: pyro.optim.SGD({"lr": 1e-4, "momentum": 0.9}),
    "clipped": lambda: pyro.optim.Adam({"lr": 0.1}, {"clip_norm": 1.0}),
    "by name": lambda: pyro.optim.Adam(lambda name: {"lr": 0.01 if "scales" in name else 0.1}),
    "ExponentialLR": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.5}
    ),
    "ReduceLROnPlateau": lambda: pyro.optim.ReduceLROnPlateau(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "patience": 0}
    ),
}
SCHEDULES: dict[str, Callable[[Any, float], None]] = {
    "ExponentialLR": lambda optimizer, loss: optimizer.step(),
    "ReduceLROnPlateau": lambda optimizer, loss: optimizer.step(loss),
}


class TestOptimizers:
    """Both ELBOs train the same parameters."""

    def trained(self, optimizer, elbo, schedule=lambda optimizer, loss: None):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = SVI(schools, AutoNormal(schools), optimizer, elbo)
        for _ in range(3):
            schedule(optimizer, svi.step())
        return {name: value.detach() for name, value in pyro.get_param_store().items()}

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_pyro_optimizer(self, name):
        schedule = [SCHEDULES[name]] if name in SCHEDULES else []
        ours, theirs = (self.trained(OPTIMIZERS[name](), elbo, *schedule) for elbo in (BlackBoxELBO(), Trace_ELBO()))
        torch.testing.assert_close(ours, theirs)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: PyroMultiOptimizer(pyro.optim.Adam({"lr": 0.1})),
            lambda: TorchMultiOptimizer(torch.optim.Adam, {"lr": 0.1}),
            lambda: Newton(trust_radii={"loc": 0.1, "scale": 0.1}),
            lambda: MixedMultiOptimizer([(["loc"], pyro.optim.Adam({"lr": 0.1})), (["scale"], Newton())]),
        ],
        ids=["PyroMultiOptimizer", "TorchMultiOptimizer", "Newton", "MixedMultiOptimizer"],
    )
    def test_several_pyro_optimizers_at_once(self, make):
        def model():
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.ones(1))

        def guide():
            loc = pyro.param("loc", torch.full((1,), 0.3))
            scale = pyro.param("scale", torch.ones(1), constraint=constraints.positive)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

        def steps(elbo):
            pyro.clear_param_store()
            pyro.set_rng_seed(0)
            optimizer = make()
            for _ in range(3):
                with poutine.trace(param_only=True) as trace:
                    loss = elbo.differentiable_loss(model, guide)
                optimizer.step(loss, {name: site["value"].unconstrained() for name, site in trace.trace.nodes.items()})
            return {name: value.detach() for name, value in pyro.get_param_store().items()}

        torch.testing.assert_close(steps(BlackBoxELBO()), steps(Trace_ELBO()))


@pytest.mark.parametrize("local", [False, True])
def test_module_is_optimized_by_torch_with_global_and_local_parameters(local):
    def steps(elbo):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        with pyro.settings.context(module_local_params=local):
            model, data = Regression(), regression_data()
            module = elbo(model, AutoNormal(model))
            module(*data)
            optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                module(*data).backward()
                optimizer.step()
        assert bool(pyro.get_param_store()) is not local
        return [parameter.detach() for parameter in module.parameters()]

    torch.testing.assert_close(steps(BlackBoxELBO()), steps(Trace_ELBO()))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:FutureWarning")
class TestTracing:
    """Tracing by ``torch.jit.trace``, as in Pyro's JIT ELBOs."""

    def traced(self, model, guide, elbo):
        module = elbo(model, guide)
        module()  # creates the parameters
        return torch.jit.trace(module, (), check_trace=False)

    def test_traced_loss_samples_in_each_call(self):
        guide = AutoNormal(schools)
        traced = self.traced(schools, guide, BlackBoxELBO(2))
        pyro.set_rng_seed(3)
        ours = [traced() for _ in range(2)]
        pyro.set_rng_seed(3)
        theirs = [Trace_ELBO(2).differentiable_loss(schools, guide) for _ in range(2)]
        torch.testing.assert_close(ours, theirs)

    def test_tracing_data_dependent_control_flow_raises(self):
        class Guide(PyroModule):
            def __init__(self):
                super().__init__()
                self.logit = PyroParam(torch.tensor(0.0))

            def forward(self):
                pyro.sample("z", dist.Bernoulli(logits=self.logit))

        def model():
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(1.0 if z else 2.0, 1.0), obs=torch.tensor(1.0))

        with pytest.raises(
            ValueError, match=r"'z' determine the control flow .* torch.jit.trace would record the branch of this run"
        ):
            self.traced(model, Guide(), BlackBoxELBO())


def test_enumerated_variables_of_the_model_raise_and_name_trace_enum_elbo():
    @config_enumerate
    def model():
        probability = pyro.sample("probability", dist.Beta(2.0, 2.0))
        with pyro.plate("data", 3):
            kind = pyro.sample("kind", dist.Bernoulli(probability))
            pyro.sample("x", dist.Normal(kind, 1.0), obs=torch.zeros(3))

    guide = AutoNormal(poutine.block(model, expose=["probability"]))
    with pytest.raises(
        ValueError, match=r"samples 'kind', which the guide does not; .* only by pyro\.infer\.TraceEnum_ELBO\)"
    ):
        BlackBoxELBO().loss(model, guide)


def test_training_continues_from_a_saved_parameter_store(tmp_path):
    def steps(optimizer, guide):
        svi = SVI(schools, guide, optimizer, BlackBoxELBO())
        return [svi.step() for _ in range(3)]

    optimizer, guide = pyro.optim.Adam({"lr": 0.1}), AutoNormal(schools)
    steps(optimizer, guide)
    pyro.get_param_store().save(tmp_path / "parameters")
    optimizer.save(tmp_path / "optimizer")
    pyro.set_rng_seed(5)
    expected = steps(optimizer, guide)

    pyro.clear_param_store()
    pyro.get_param_store().load(tmp_path / "parameters")
    optimizer, guide = pyro.optim.Adam({"lr": 0.1}), AutoNormal(schools)
    optimizer.load(tmp_path / "optimizer")
    guide()
    pyro.set_rng_seed(5)
    assert steps(optimizer, guide) == expected


def test_predictive_accepts_a_trained_guide():
    guide = AutoNormal(schools)
    SVI(schools, guide, pyro.optim.Adam({"lr": 0.1}), BlackBoxELBO()).step()
    assert Predictive(schools, guide=guide, num_samples=4)()["measured"].shape == (4, 8)
