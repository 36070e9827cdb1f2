import pytest
import torch

from zoo.gradients.estimators import bernoulli_sampler
from zoo.inference.sbn import BeliefNetwork
from zoo.inference.sbn.network import binary_pixels


@pytest.fixture
def images():
    return (torch.arange(12).reshape(3, 4) % 3 == 0).double()


class TestShape:
    def test_generative_layers_mirror_inference_layers(self):
        network = BeliefNetwork(10, (5, 3), hidden=(8, 7))
        widths = [[layer.weight.shape for layer in net if hasattr(layer, "weight")] for net in network.up]
        assert widths == [[(8, 10), (7, 8), (5, 7)], [(8, 5), (7, 8), (3, 7)]]
        widths = [[layer.weight.shape for layer in net if hasattr(layer, "weight")] for net in network.down]
        assert widths == [[(7, 5), (8, 7), (10, 8)], [(7, 3), (8, 7), (5, 8)]]
        assert network.prior_logits.shape == (3,)

    def test_linear_network_has_one_linear_map_per_layer(self):
        network = BeliefNetwork(10, (5, 3))
        assert [len(net) for net in (*network.up, *network.down)] == [1, 1, 1, 1]

    @pytest.mark.parametrize(("layers", "hidden"), [((), ()), ((0,), ()), ((3,), (0,))])
    def test_width_below_one_raises(self, layers, hidden):
        with pytest.raises(ValueError, match="layers need at least 1 unit each"):
            BeliefNetwork(4, layers, hidden)

    def test_unknown_activation_raises_with_known_ones(self):
        with pytest.raises(ValueError, match="unknown activation 'gelu'; choose one of tanh, leaky_relu"):
            BeliefNetwork(4, (2,), activation="gelu")


class TestBeginning:
    @pytest.fixture
    def network(self):
        network = BeliefNetwork(4, (300,))
        network.initialize_bias(torch.tensor([0.0, 0.2, 0.5, 1.0]))
        return network

    def test_initial_pixel_probabilities_are_near_training_mean(self, network):
        lowest = network.ancestral_sample([torch.rand(50, 300)])
        expected = torch.tensor([0.001, 0.2, 0.5, 0.999])
        torch.testing.assert_close(network.pixel_probabilities(lowest).mean(0), expected, rtol=0, atol=0.05)

    def test_input_of_inference_network_is_centered(self, network):
        mean = torch.tensor([[0.0, 0.2, 0.5, 1.0]])
        posterior = network.infer(mean, bernoulli_sampler(network.noise(2, mean)))
        assert posterior.inputs[0].abs().max() == 0

    def test_mean_is_in_state_dict(self, network):
        other = BeliefNetwork(4, (300,))
        other.load_state_dict(network.state_dict())
        assert torch.equal(other.mean, network.mean)


class TestInference:
    def test_units_are_sampled_with_their_probabilities(self, make_network, images):
        network, seen = make_network(3), []
        noise = [torch.linspace(0, 1, 2002, dtype=torch.double)[1:-1, None, None].expand(-1, 3, 3)]

        def draw(layer, logits):
            seen.append(logits)
            return bernoulli_sampler(noise)(layer, logits)

        posterior = network.infer(images, draw)
        torch.testing.assert_close(posterior.units[0].mean(0), seen[0].sigmoid(), rtol=0, atol=1e-3)

    def test_each_layer_is_conditioned_on_the_layer_below(self, make_network, images):
        network, seen = make_network(3, 2), []
        units = [torch.tensor([1.0, 0.0, 1.0]).double().expand(5, 3, 3), torch.ones(5, 3, 2).double()]

        def draw(layer, logits):
            seen.append(logits)
            return units[layer]

        posterior = network.infer(images, draw)
        torch.testing.assert_close(seen[0], network.up[0](images - network.mean))
        torch.testing.assert_close(seen[1], network.up[1](2 * units[0] - 1))
        assert [term.shape for term in posterior.log_q] == [(5, 3), (5, 3)]

    def test_lowest_logits_are_computed_once_for_all_particles(self, make_network, images):
        shapes = []
        network = make_network(3)
        network.up[0].register_forward_hook(lambda net, inputs, output: shapes.append(output.shape))
        network.infer(images, bernoulli_sampler(network.noise(7, images)))
        assert shapes == [(3, 3)]

    def test_samples_carry_no_gradient(self, make_network, images):
        network = make_network(3, 2)
        posterior = network.infer(images, bernoulli_sampler(network.noise(2, images)))
        assert not any(units.requires_grad for units in posterior.units)
        assert all(term.requires_grad for term in posterior.log_q)

    def test_noise_is_reproducible_and_leaves_global_random_state(self, make_network, images):
        network, before = make_network(3, 2), torch.get_rng_state()
        one, other = (network.noise(2, images, torch.Generator().manual_seed(5)) for _ in range(2))
        assert all(map(torch.equal, one, other))
        assert torch.equal(torch.get_rng_state(), before)


class TestGeneration:
    def test_ancestral_samples_have_model_probabilities(self, make_network):
        network = make_network(2, 1)
        count = 20_000
        generator = torch.Generator().manual_seed(0)
        noise = [torch.rand(count, units, generator=generator, dtype=torch.double) for units in (2, 1)]
        lowest = network.ancestral_sample(noise)
        top = torch.tensor([[0.0], [1.0]], dtype=torch.double)
        given_top = network.down[1](2 * top - 1).sigmoid()
        prior = network.prior_logits.sigmoid()
        exact = (1 - prior) * given_top[0] + prior * given_top[1]
        assert (lowest.mean(0) - exact).abs().max() < 6 * 0.5 / count**0.5  # six standard errors or more

    def test_ancestral_sampling_starts_at_the_top(self, make_network):
        network = make_network(2, 1)
        noise = [torch.full((1, 2), 0.5).double(), torch.zeros(1, 1).double()]
        assert torch.equal(network.ancestral_sample(noise), (network.down[1](torch.ones(1, 1).double()) > 0).double())


def test_rare_units_have_correct_frequency_in_half_precision():
    """False alarms: 1e-6, at 4.9 standard errors; with noise of half precision they came three times as often."""
    draws, probability = 400_000, 1e-3
    logits = torch.full((1,), probability, dtype=torch.float64).logit().to(torch.bfloat16)
    network = BeliefNetwork(pixels=1, layers=(draws,)).bfloat16()
    noise = network.noise(1, torch.zeros(1, 1, dtype=torch.bfloat16), torch.Generator().manual_seed(0))
    units = bernoulli_sampler(noise)(0, logits.expand(1, 1, draws))
    expected = logits.double().sigmoid().item()
    assert units.dtype == torch.bfloat16
    assert abs(units.float().mean().item() - expected) < 4.9 * (expected / draws) ** 0.5


SHAPE = (1, 2, 3)


def test_binary_pixels_maps_black_and_white_to_zero_and_one():
    images = torch.tensor([0, 255, 0, 0, 255, 255], dtype=torch.uint8).reshape(1, *SHAPE)
    assert binary_pixels(images, SHAPE).tolist() == [[0, 1, 0, 0, 1, 1]]


def test_binary_pixels_keeps_binary_floats():
    images = torch.tensor([0, 1.0, 0, 0, 1, 1], dtype=torch.double).reshape(1, *SHAPE)
    assert torch.equal(binary_pixels(images, SHAPE), images.flatten(1))


@pytest.mark.parametrize("level", [0.5, 2.0, -1.0, float("nan"), float("inf")])
def test_binary_pixels_rejects_other_values(level):
    with pytest.raises(ValueError, match="neither black nor white, or NaN; binarize the images first"):
        binary_pixels(torch.full((1, *SHAPE), level), SHAPE)


def test_binary_pixels_rejects_gray_levels():
    with pytest.raises(ValueError, match="binarize"):
        binary_pixels(torch.full((1, *SHAPE), 1, dtype=torch.uint8), SHAPE)


@pytest.mark.parametrize("shape", [(0, 1, 2, 3), (5, 1, 3, 2), (5, 3, 2, 3)])
def test_binary_pixels_rejects_other_shapes_and_empty_batch(shape):
    with pytest.raises(ValueError, match=r"built for images of shape \(1, 2, 3\), got a batch of"):
        binary_pixels(torch.zeros(shape), SHAPE)
