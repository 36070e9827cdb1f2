import pytest
import torch
from torch import nn

from zoo.attention import GlimpseSensor, RecurrentAttentionNetwork
from zoo.attention.ram.network import spiral

STD = 0.4
close = {"rtol": 0, "atol": 1e-6}


@pytest.fixture
def first():
    """Where two walks over each of the eight pictures start."""
    return torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def noise():
    """Of their three moves."""
    return torch.randn(3, 2, 8, 2, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def walk(make_network, images, first, noise):
    """The network's rollout, with some of its arguments replaced."""

    def walk(network=None, std=STD, **changed):
        given = {"images": images / 255, "first": first, "noise": noise, **changed}
        return (network or make_network()).rollout(std=std, **given)

    return walk


class TestRollout:
    def test_each_glimpse_but_the_last_decides_where_the_next_one_is_taken(self, walk, make_network, first, noise):
        network = make_network()
        rollout = walk(network)
        assert len(rollout.states) == len(rollout.locations) == len(noise) + 1
        torch.testing.assert_close(rollout.locations[0], first, rtol=0, atol=0)
        strayed = network.locator(rollout.states[:-1])
        torch.testing.assert_close(rollout.means, spiral(3, 0.6)[:, None, None] + strayed, **close)
        torch.testing.assert_close(rollout.locations[1:], rollout.means.detach() + STD * noise, **close)

    def test_without_a_spread_the_state_alone_decides(self, walk, make_network):
        network = make_network(spread=0.0)
        rollout = walk(network)
        torch.testing.assert_close(rollout.means, network.locator(rollout.states[:-1]), **close)

    def test_a_location_beyond_the_border_counts_as_one_on_it(self, make_network, images):
        inside, beyond = torch.tensor([1.0, -1.0]), torch.tensor([7.0, -1.5])
        on, off = (make_network().follow(images / 255, place.expand(2, 1, 8, 2)).states for place in (inside, beyond))
        torch.testing.assert_close(on, off, rtol=0, atol=0)

    def test_no_location_is_drawn_after_the_last_glimpse(self, walk, noise):
        rollout = walk()
        assert len(rollout.means) == len(noise) == len(rollout.states) - 1

    def test_locations_are_raw_even_where_the_sensor_clips_them(self, walk):
        assert walk(std=5.0).locations.abs().max() > 3

    def test_a_state_depends_on_all_glimpses_so_far_and_on_none_to_come(self, walk, noise):
        before = walk()
        for t in range(len(noise)):
            changed = noise.clone()
            changed[t] += 1
            after = walk(noise=changed)
            moved = (after.states != before.states).flatten(1).any(1)
            assert moved.tolist() == [glimpse > t for glimpse in range(len(noise) + 1)]

    def test_without_noise_every_move_goes_to_the_mean(self, walk, noise):
        rollout = walk(noise=torch.zeros_like(noise))
        torch.testing.assert_close(rollout.locations[1:], rollout.means.detach(), rtol=0, atol=0)

    def test_the_walks_of_a_picture_and_the_pictures_of_a_batch_do_not_disturb_each_other(
        self, walk, images, first, noise
    ):
        together = walk()
        alone = walk(images=images[3:4] / 255, first=first[1:, 3:4], noise=noise[:, 1:, 3:4])
        for parts, part in zip(together, alone, strict=True):
            torch.testing.assert_close(parts[:, 1:, 3:4], part, **close)

    def test_one_glimpse_is_a_walk_without_moves(self, walk, first, noise):
        rollout = walk(noise=noise[:0])
        assert rollout.states.shape[:3] == (1, 2, 8)
        assert rollout.means.shape == (0, 2, 8, 2)

    def test_following_the_locations_of_a_rollout_leads_to_the_same_states(self, walk, make_network, images):
        network = make_network()
        rollout = walk(network)
        followed = network.follow(images / 255, rollout.locations)
        torch.testing.assert_close(followed.states, rollout.states, **close)
        assert followed.means.shape == (0, 2, 8, 2)


class TestGradient:
    def test_the_classifier_does_not_pull_the_gaze_along_the_pixels(self, walk, make_network):
        network = make_network()
        rollout = walk(network)
        network.classifier(rollout.states[-1]).logsumexp(-1).sum().backward()
        assert not rollout.locations.requires_grad
        assert all(p.grad is None for p in network.locator.parameters())
        assert all(p.grad.norm() > 0 for p in network.glimpse_to_state.parameters())

    def test_the_means_pull_the_location_network(self, walk, make_network):
        network = make_network()
        walk(network).means.square().sum().backward()
        assert all(p.grad.norm() > 0 for p in network.locator.parameters())

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_they_pull_the_core_only_if_it_is_asked_for(self, walk, make_network, reinforce_core):
        network = make_network(reinforce_core=reinforce_core)
        walk(network).means.square().sum().backward()
        for layer in (network.what, network.where, network.glimpse_to_state, network.state_to_state):
            assert (layer.weight.grad is not None) is reinforce_core
            assert not reinforce_core or layer.weight.grad.norm() > 0

    def test_the_switch_changes_no_number(self, walk, make_network):
        on, off = walk(make_network(reinforce_core=True)), walk(make_network(reinforce_core=False))
        for a, b in zip(on, off, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


class TestSpiral:
    def test_lies_within_its_radius_and_around_the_middle(self):
        points = spiral(200, radius=0.5)
        assert points.norm(dim=-1).max() == pytest.approx(0.5, abs=0.01)
        torch.testing.assert_close(points.mean(0), torch.zeros(2), **close)

    def test_is_as_dense_at_the_middle_as_at_the_rim(self):
        distance = spiral(400, radius=1.0).norm(dim=-1)
        for radius in (0.25, 0.5, 0.75):
            assert (distance < radius).float().mean() == pytest.approx(radius**2, abs=0.01)

    @pytest.mark.parametrize("points", [2, 3, 4, 5, 6, 7])
    def test_few_points_keep_apart_and_within_reach(self, points):
        places = spiral(points, radius=1.0)
        assert torch.pdist(places).min() > 1 / points**0.5
        assert places.norm(dim=-1).max() < 1.1

    def test_a_single_point_lies_in_the_middle(self):
        assert spiral(1, radius=0.6).eq(0).all()

    def test_of_none_or_without_a_radius(self):
        assert spiral(0, radius=0.6).shape == (0, 2)
        assert spiral(5, radius=0.0).eq(0).all()


class TestLogits:
    def test_last_glimpse_is_read_by_the_classifier_and_all_others_by_the_probe(self, make_network):
        network, states = make_network(), torch.rand(3, 2, 8, 256)
        torch.nn.init.normal_(network.probe.weight)
        logits = network.logits(states)
        torch.testing.assert_close(logits[-1], network.classifier(states[-1]))
        torch.testing.assert_close(logits[:-1], network.probe(states[:-1]))

    def test_gradient_of_the_probe_stops_at_the_states(self, make_network):
        states = torch.rand(3, 2, 8, 256, requires_grad=True)
        network = make_network()
        torch.nn.init.normal_(network.probe.weight)
        network.logits(states).logsumexp(-1).sum().backward()
        assert not states.grad[:-1].any()
        assert states.grad[-1].any()

    def test_probe_uses_up_no_random_numbers(self, make_network):
        network = make_network()
        drawn = torch.rand(1)
        torch.manual_seed(0)  # as make_network does
        for module in network.modules():
            if isinstance(module, torch.nn.Linear) and module is not network.probe:
                torch.nn.Linear(module.in_features, module.out_features)
        assert torch.equal(torch.rand(1), drawn)


class TestLayers:
    def test_they_have_the_sizes_of_the_paper(self):
        network = RecurrentAttentionNetwork(GlimpseSensor((3, 60, 60), size=12, scales=3), classes=10, locator_hidden=0)
        sizes = {name: (m.in_features, m.out_features) for name, m in network.named_modules() if hasattr(m, "weight")}
        assert sizes == {
            "what": (3 * 3 * 12 * 12, 128),
            "where": (2, 128),
            "what_to_glimpse": (128, 256),
            "where_to_glimpse": (128, 256),
            "glimpse_to_state": (256, 256),
            "state_to_state": (256, 256),
            "locator": (256, 2),
            "classifier": (256, 10),
            "probe": (256, 10),  # not in the paper
        }

    def test_the_location_network_can_have_a_hidden_layer(self, make_network):
        locator = make_network(locator_hidden=17).locator
        assert [type(layer) for layer in locator] == [nn.Linear, nn.ReLU, nn.Linear]
        assert locator(torch.zeros(1, 256)).shape == (1, 2)
        assert locator[0].out_features == 17

    def test_states_are_those_of_a_recurrent_cell_with_relus(self, make_network, images, first):
        network, where = make_network(), first[0]
        relu, windows = nn.functional.relu, network.sensor.windows(images / 255)
        seen = relu(network.what(network.sensor(windows, where).flatten(1)))
        told = relu(network.where(where))
        glimpse = relu(network.what_to_glimpse(seen) + network.where_to_glimpse(told))
        state = torch.rand(8, 256)
        expected = relu(network.glimpse_to_state(glimpse) + network.state_to_state(state))
        torch.testing.assert_close(network.step(state, windows, where), expected, **close)
