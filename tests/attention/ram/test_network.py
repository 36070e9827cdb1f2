import pytest
import torch
from torch import nn

from zoo.attention import GlimpseSensor, RecurrentAttentionNetwork
from zoo.attention.ram._spiral import spiral

STD = 0.4
close = {"rtol": 0, "atol": 1e-6}


@pytest.fixture
def first():
    """First locations of two trajectories for each of the eight images."""
    return torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def noise():
    """Noise of their three steps."""
    return torch.randn(3, 2, 8, 2, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def sample(make_network, images, first, noise):
    """Samples a trajectory, with some arguments replaced."""

    def sample(network=None, std=STD, **changed):
        given = {"images": images / 255, "first": first, "noise": noise, **changed}
        return (network or make_network()).sample_trajectory(std=std, **given)

    return sample


class TestTrajectory:
    def test_each_state_but_the_last_determines_the_next_location(self, sample, make_network, first, noise):
        network = make_network()
        trajectory = sample(network)
        assert len(trajectory.states) == len(trajectory.locations) == len(noise) + 1
        torch.testing.assert_close(trajectory.locations[0], first, rtol=0, atol=0)
        offset = network.location_net(trajectory.states[:-1])
        torch.testing.assert_close(trajectory.means, spiral(3, 0.6)[:, None, None] + offset, **close)
        torch.testing.assert_close(trajectory.locations[1:], trajectory.means.detach() + STD * noise, **close)

    def test_without_a_spiral_the_location_network_alone_determines_the_mean(self, sample, make_network):
        network = make_network(spiral_radius=0.0)
        trajectory = sample(network)
        torch.testing.assert_close(trajectory.means, network.location_net(trajectory.states[:-1]), **close)

    def test_location_beyond_the_border_is_clipped(self, make_network, images):
        inside, beyond = torch.tensor([1.0, -1.0]), torch.tensor([7.0, -1.5])
        on, off = (
            make_network().trajectory_at(images / 255, place.expand(2, 1, 8, 2)).states for place in (inside, beyond)
        )
        torch.testing.assert_close(on, off, rtol=0, atol=0)

    def test_no_location_is_sampled_after_the_last_glimpse(self, sample, noise):
        trajectory = sample()
        assert len(trajectory.means) == len(noise) == len(trajectory.states) - 1

    def test_locations_are_raw_even_if_the_sensor_clips_them(self, sample):
        assert sample(std=5.0).locations.abs().max() > 3

    def test_state_depends_on_past_glimpses_only(self, sample, noise):
        before = sample()
        for t in range(len(noise)):
            changed = noise.clone()
            changed[t] += 1
            after = sample(noise=changed)
            moved = (after.states != before.states).flatten(1).any(1)
            assert moved.tolist() == [glimpse > t for glimpse in range(len(noise) + 1)]

    def test_without_noise_every_location_is_the_mean(self, sample, noise):
        trajectory = sample(noise=torch.zeros_like(noise))
        torch.testing.assert_close(trajectory.locations[1:], trajectory.means.detach(), rtol=0, atol=0)

    def test_samples_and_images_are_independent(self, sample, images, first, noise):
        together = sample()
        alone = sample(images=images[3:4] / 255, first=first[1:, 3:4], noise=noise[:, 1:, 3:4])
        for parts, part in zip(together, alone, strict=True):
            torch.testing.assert_close(parts[:, 1:, 3:4], part, **close)

    def test_single_glimpse_has_no_steps(self, sample, first, noise):
        trajectory = sample(noise=noise[:0])
        assert trajectory.states.shape[:3] == (1, 2, 8)
        assert trajectory.means.shape == (0, 2, 8, 2)

    def test_trajectory_at_sampled_locations_has_the_same_states(self, sample, make_network, images):
        network = make_network()
        trajectory = sample(network)
        repeated = network.trajectory_at(images / 255, trajectory.locations)
        torch.testing.assert_close(repeated.states, trajectory.states, **close)
        assert repeated.means.shape == (0, 2, 8, 2)


class TestGradient:
    def test_classifier_gradient_does_not_reach_the_location_network(self, sample, make_network):
        network = make_network()
        trajectory = sample(network)
        network.classifier(trajectory.states[-1]).logsumexp(-1).sum().backward()
        assert not trajectory.locations.requires_grad
        assert all(p.grad is None for p in network.location_net.parameters())
        assert all(p.grad.norm() > 0 for p in network.glimpse_to_hidden.parameters())

    def test_means_train_the_location_network(self, sample, make_network):
        network = make_network()
        sample(network).means.square().sum().backward()
        assert all(p.grad.norm() > 0 for p in network.location_net.parameters())

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_means_train_the_core_only_with_reinforce_core(self, sample, make_network, reinforce_core):
        network = make_network(reinforce_core=reinforce_core)
        sample(network).means.square().sum().backward()
        for layer in (
            network.image_encoder,
            network.location_encoder,
            network.glimpse_to_hidden,
            network.hidden_to_hidden,
        ):
            assert (layer.weight.grad is not None) is reinforce_core
            assert not reinforce_core or layer.weight.grad.norm() > 0

    def test_reinforce_core_does_not_change_the_forward_pass(self, sample, make_network):
        on, off = sample(make_network(reinforce_core=True)), sample(make_network(reinforce_core=False))
        for a, b in zip(on, off, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


class TestSpiral:
    def test_points_lie_within_the_radius_around_the_center(self):
        points = spiral(200, radius=0.5)
        assert points.norm(dim=-1).max() == pytest.approx(0.5, abs=0.01)
        torch.testing.assert_close(points.mean(0), torch.zeros(2), **close)

    def test_spiral_points_cover_the_disc_uniformly(self):
        distance = spiral(400, radius=1.0).norm(dim=-1)
        for radius in (0.25, 0.5, 0.75):
            assert (distance < radius).float().mean() == pytest.approx(radius**2, abs=0.01)

    @pytest.mark.parametrize("points", [2, 3, 4, 5, 6, 7])
    def test_few_points_keep_a_distance_and_stay_within_the_radius(self, points):
        places = spiral(points, radius=1.0)
        assert torch.pdist(places).min() > 1 / points**0.5
        assert places.norm(dim=-1).max() < 1.1

    def test_single_point_lies_at_the_center(self):
        assert spiral(1, radius=0.6).eq(0).all()

    def test_spiral_without_points_is_empty_and_without_radius_is_the_center(self):
        assert spiral(0, radius=0.6).shape == (0, 2)
        assert spiral(5, radius=0.0).eq(0).all()


class TestLogits:
    def test_classifier_reads_the_last_state_and_the_probe_all_others(self, make_network):
        network, states = make_network(), torch.rand(3, 2, 8, 256)
        torch.nn.init.normal_(network.probe.weight)
        logits = network.logits(states)
        torch.testing.assert_close(logits[-1], network.classifier(states[-1]))
        torch.testing.assert_close(logits[:-1], network.probe(states[:-1]))

    def test_probe_gradient_stops_at_the_states(self, make_network):
        states = torch.rand(3, 2, 8, 256, requires_grad=True)
        network = make_network()
        torch.nn.init.normal_(network.probe.weight)
        network.logits(states).logsumexp(-1).sum().backward()
        assert not states.grad[:-1].any()
        assert states.grad[-1].any()

    def test_probe_initialization_draws_no_random_numbers(self, make_network):
        network = make_network()
        drawn = torch.rand(1)
        torch.manual_seed(0)  # as make_network does
        for module in network.modules():
            if isinstance(module, torch.nn.Linear) and module is not network.probe:
                torch.nn.Linear(module.in_features, module.out_features)
        assert torch.equal(torch.rand(1), drawn)


class TestLayers:
    def test_layer_sizes_are_the_papers(self):
        network = RecurrentAttentionNetwork(
            GlimpseSensor((3, 60, 60), patch_size=12, num_scales=3), num_classes=10, location_hidden=0
        )
        sizes = {name: (m.in_features, m.out_features) for name, m in network.named_modules() if hasattr(m, "weight")}
        assert sizes == {
            "image_encoder": (3 * 3 * 12 * 12, 128),
            "location_encoder": (2, 128),
            "image_to_glimpse": (128, 256),
            "location_to_glimpse": (128, 256),
            "glimpse_to_hidden": (256, 256),
            "hidden_to_hidden": (256, 256),
            "location_net": (256, 2),
            "classifier": (256, 10),
            "probe": (256, 10),  # not in the paper
        }

    def test_location_network_can_have_a_hidden_layer(self, make_network):
        location_net = make_network(location_hidden=17).location_net
        assert [type(layer) for layer in location_net] == [nn.Linear, nn.ReLU, nn.Linear]
        assert location_net(torch.zeros(1, 256)).shape == (1, 2)
        assert location_net[0].out_features == 17

    def test_step_is_a_recurrent_cell_with_relus(self, make_network, images, first):
        network, location = make_network(), first[0]
        relu, patches = nn.functional.relu, network.sensor.patches(images / 255)
        image_features = relu(network.image_encoder(network.sensor(patches, location).flatten(1)))
        location_features = relu(network.location_encoder(location))
        glimpse = relu(network.image_to_glimpse(image_features) + network.location_to_glimpse(location_features))
        state = torch.rand(8, 256)
        expected = relu(network.glimpse_to_hidden(glimpse) + network.hidden_to_hidden(state))
        torch.testing.assert_close(network.step(state, patches, location), expected, **close)
