import pytest
import torch

from zoo.inference.sbn import BeliefNetwork, threshold


@pytest.fixture
def pictures():
    return (torch.arange(12).reshape(3, 4) % 3 == 0).double()


class TestShape:
    def test_layers_mirror_each_other(self):
        network = BeliefNetwork(10, (5, 3), hidden=(8, 7))
        widths = [[layer.weight.shape for layer in net if hasattr(layer, "weight")] for net in network.up]
        assert widths == [[(8, 10), (7, 8), (5, 7)], [(8, 5), (7, 8), (3, 7)]]
        widths = [[layer.weight.shape for layer in net if hasattr(layer, "weight")] for net in network.down]
        assert widths == [[(7, 5), (8, 7), (10, 8)], [(7, 3), (8, 7), (5, 8)]]
        assert network.prior_logits.shape == (3,)

    def test_a_linear_network_is_affine_from_layer_to_layer(self):
        network = BeliefNetwork(10, (5, 3))
        assert [len(net) for net in (*network.up, *network.down)] == [1, 1, 1, 1]

    @pytest.mark.parametrize(("layers", "hidden"), [((), ()), ((0,), ()), ((3,), (0,))])
    def test_a_width_below_one_is_refused(self, layers, hidden):
        with pytest.raises(ValueError, match="a network needs layers of 1 unit or more"):
            BeliefNetwork(4, layers, hidden)

    def test_an_unknown_activation_is_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match="no activation 'gelu'; choose one of tanh, leaky_relu"):
            BeliefNetwork(4, (2,), activation="gelu")


class TestBeginning:
    @pytest.fixture
    def network(self):
        network = BeliefNetwork(4, (300,))
        network.begin_at(torch.tensor([0.0, 0.2, 0.5, 1.0]))
        return network

    def test_the_pixels_are_about_as_probable_as_in_the_training_set(self, network):
        lowest = network.ancestral([torch.rand(50, 300)])
        expected = torch.tensor([0.001, 0.2, 0.5, 0.999])
        torch.testing.assert_close(network.pixel_probabilities(lowest).mean(0), expected, rtol=0, atol=0.05)

    def test_what_the_inference_network_sees_is_centred(self, network):
        mean = torch.tensor([[0.0, 0.2, 0.5, 1.0]])
        posterior = network.infer(mean, threshold(network.noise(2, mean)))
        assert posterior.inputs[0].abs().max() == 0

    def test_the_mean_is_kept_with_the_weights(self, network):
        other = BeliefNetwork(4, (300,))
        other.load_state_dict(network.state_dict())
        assert torch.equal(other.mean, network.mean)


class TestInference:
    def test_a_unit_is_on_as_often_as_its_probability_says(self, make_network, pictures):
        network, seen = make_network(3), []
        noise = [torch.linspace(0, 1, 2002, dtype=torch.double)[1:-1, None, None].expand(-1, 3, 3)]

        def draw(layer, logits):
            seen.append(logits)
            return threshold(noise)(layer, logits)

        posterior = network.infer(pictures, draw)
        torch.testing.assert_close(posterior.units[0].mean(0), seen[0].sigmoid(), rtol=0, atol=1e-3)

    def test_each_layer_is_drawn_from_the_one_below(self, make_network, pictures):
        network, seen = make_network(3, 2), []
        units = [torch.tensor([1.0, 0.0, 1.0]).double().expand(5, 3, 3), torch.ones(5, 3, 2).double()]

        def draw(layer, logits):
            seen.append(logits)
            return units[layer]

        posterior = network.infer(pictures, draw)
        torch.testing.assert_close(seen[0], network.up[0](pictures - network.mean))
        torch.testing.assert_close(seen[1], network.up[1](2 * units[0] - 1))
        assert [term.shape for term in posterior.log_q] == [(5, 3), (5, 3)]

    def test_the_lowest_layer_is_computed_once_for_all_particles(self, make_network, pictures):
        shapes = []
        network = make_network(3)
        network.up[0].register_forward_hook(lambda net, inputs, output: shapes.append(output.shape))
        network.infer(pictures, threshold(network.noise(7, pictures)))
        assert shapes == [(3, 3)]

    def test_no_gradient_flows_through_the_samples(self, make_network, pictures):
        network = make_network(3, 2)
        posterior = network.infer(pictures, threshold(network.noise(2, pictures)))
        assert not any(units.requires_grad for units in posterior.units)
        assert all(term.requires_grad for term in posterior.log_q)

    def test_a_generator_gives_the_same_noise_again_and_leaves_the_global_one_alone(self, make_network, pictures):
        network, before = make_network(3, 2), torch.get_rng_state()
        one, other = (network.noise(2, pictures, torch.Generator().manual_seed(5)) for _ in range(2))
        assert all(map(torch.equal, one, other))
        assert torch.equal(torch.get_rng_state(), before)


class TestGeneration:
    def test_dreams_have_the_probabilities_of_the_model(self, make_network):
        network = make_network(2, 1)
        count = 20_000
        generator = torch.Generator().manual_seed(0)
        noise = [torch.rand(count, units, generator=generator, dtype=torch.double) for units in (2, 1)]
        lowest = network.ancestral(noise)
        top = torch.tensor([[0.0], [1.0]], dtype=torch.double)
        given_top = network.down[1](2 * top - 1).sigmoid()
        prior = network.prior_logits.sigmoid()
        exact = (1 - prior) * given_top[0] + prior * given_top[1]
        assert (lowest.mean(0) - exact).abs().max() < 6 * 0.5 / count**0.5  # six standard errors or more

    def test_it_draws_from_the_top_down(self, make_network):
        network = make_network(2, 1)
        noise = [torch.full((1, 2), 0.5).double(), torch.zeros(1, 1).double()]
        assert torch.equal(network.ancestral(noise), (network.down[1](torch.ones(1, 1).double()) > 0).double())


def test_rare_units_are_drawn_as_often_as_they_are_probable_in_half_precision():
    """False alarms: 1e-6, at 4.9 standard errors; with noise of half precision they came three times as often."""
    draws, probability = 400_000, 1e-3
    logits = torch.full((1,), probability, dtype=torch.float64).logit().to(torch.bfloat16)
    network = BeliefNetwork(pixels=1, layers=(draws,)).bfloat16()
    noise = network.noise(1, torch.zeros(1, 1, dtype=torch.bfloat16), torch.Generator().manual_seed(0))
    units = threshold(noise)(0, logits.expand(1, 1, draws))
    expected = logits.double().sigmoid().item()
    assert units.dtype == torch.bfloat16
    assert abs(units.float().mean().item() - expected) < 4.9 * (expected / draws) ** 0.5
