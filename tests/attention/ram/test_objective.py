import pytest
import torch
from scipy import stats
from torch import nn

from zoo.attention import GlimpseSensor, RecurrentAttentionNetwork, Rollout, hybrid_objective
from zoo.attention.ram.objective import location_log_prob
from zoo.gradients import Constant, Learned, LeaveOneOut, MovingAverage, Reinforce, Sum

STD = 0.3


def walk(network, images, rollouts=2, moves=2, std=STD):
    """A noisy walk over pictures of bytes, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(rollouts, len(images), 2, generator=generator) * 2 - 1
    noise = torch.randn(moves, rollouts, len(images), 2, generator=generator)
    return network.rollout(images / 255, first, noise, std)


@pytest.fixture
def judge(make_network, images, labels):
    """A rollout, the logits at its end, and the objective."""

    def judge(reinforce, std=STD, network=None, **options):
        network = network or make_network()
        rollout = walk(network, images, std=std, **options)
        logits = network.logits(rollout.states)
        return rollout, logits, hybrid_objective(logits, labels, rollout, std, reinforce)

    return judge


def log_density(rollout, std, locations=None):
    """Of the locations that were chosen, by scipy: (moves, rollouts, images)."""
    chosen = rollout.locations[1:] if locations is None else locations
    return torch.from_numpy(stats.norm(rollout.means.detach(), std).logpdf(chosen).sum(-1)).float()


class TestTerms:
    def test_cross_entropy_is_the_mean_over_all_walks(self, judge, labels):
        _, logits, objective = judge(Reinforce(maximize=True))
        probability = logits[-1].softmax(-1).gather(-1, labels.expand(2, -1)[..., None])
        torch.testing.assert_close(objective.cross_entropy, -probability.log().mean())

    def test_probe_loss_is_the_mean_cross_entropy_over_all_glimpses_but_the_last(self, judge, labels, make_network):
        network = make_network()
        nn.init.normal_(network.probe.weight, generator=torch.Generator().manual_seed(0))
        _, logits, objective = judge(Reinforce(maximize=True), network=network)
        probability = logits[:-1].softmax(-1).gather(-1, labels.expand(2, 2, -1)[..., None])
        torch.testing.assert_close(objective.probe, -probability.log().mean())

    def test_each_walk_has_a_reward_of_its_own(self, judge, labels):
        _, logits, objective = judge(Reinforce(maximize=True))
        assert objective.reward.tolist() == (logits[-1].argmax(-1) == labels).float().tolist()
        assert objective.reward.shape == (2, 8)
        assert objective.reward.unique().tolist() == [0, 1]

    def test_the_policy_is_summed_over_moves_and_averaged_over_walks(self, judge):
        rollout, _, objective = judge(Reinforce(Constant(0.25), maximize=True))
        weighed = log_density(rollout, STD) * (objective.reward - 0.25)
        torch.testing.assert_close(objective.policy, -weighed.sum() / (2 * 8), rtol=1e-5, atol=1e-5)

    def test_the_baseline_is_averaged_over_moves_and_walks(self, judge):
        net = nn.Linear(256, 1)
        rollout, _, objective = judge(Reinforce(Learned(net), maximize=True))
        guess = net(rollout.states[:-1]).squeeze(-1)
        torch.testing.assert_close(objective.reinforce.baseline, guess.detach())
        torch.testing.assert_close(objective.baseline, (guess - objective.reward).square().mean())

    def test_leave_one_out_compares_the_walks_over_the_same_picture(self, judge):
        *_, objective = judge(Reinforce(LeaveOneOut(1), maximize=True))
        difference = objective.reward[0] - objective.reward[1]
        expected = torch.stack([difference, -difference]).expand(2, 2, 8)
        assert difference.any()
        torch.testing.assert_close(objective.reinforce.advantage, expected)

    def test_every_location_that_was_chosen_and_looked_at_gets_credit_and_no_other(self, judge):
        rollout, _, objective = judge(Reinforce(maximize=True), moves=3)
        assert len(objective.reinforce.loss) == len(rollout.states) - 1 == 3

    def test_without_moves_policy_and_baseline_are_zero(self, judge):
        *_, objective = judge(Reinforce(Learned(nn.Linear(256, 1)), maximize=True), moves=0)
        assert objective.policy == objective.baseline == 0
        assert objective.cross_entropy > 0

    def test_a_given_path_earns_a_reward_but_no_credit(self, make_network, images, labels):
        network = make_network()
        rollout = network.follow(images / 255, torch.zeros(3, 1, 8, 2))
        logits = network.logits(rollout.states)
        objective = hybrid_objective(logits, labels, rollout, STD, Reinforce(maximize=True))
        assert objective.reward.sum() > 0
        assert objective.reinforce.loss.shape == (0, 1, 8)
        assert objective.policy == 0


class TestDensity:
    def test_is_the_normal_density(self):
        means, locations = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
        expected = stats.norm(means, 0.7).logpdf(locations).sum(-1)
        torch.testing.assert_close(location_log_prob(means, locations, 0.7), torch.from_numpy(expected).float())

    def test_is_that_of_the_raw_sample_where_the_sensor_clips(self, judge):
        rollout, _, objective = judge(Reinforce(maximize=True), std=2.0)
        chosen = rollout.locations[1:]
        assert (chosen.abs() > 1).float().mean() > 0.5
        raw, clipped = log_density(rollout, 2.0), log_density(rollout, 2.0, chosen.clamp(-1, 1))
        torch.testing.assert_close(objective.policy, -(raw * objective.reward).sum(0).mean(), rtol=1e-5, atol=1e-5)
        assert abs(objective.policy + (clipped * objective.reward).sum(0).mean()) > 0.1


LEARNERS = ("what", "where", "what_to_glimpse", "where_to_glimpse", "glimpse_to_state", "state_to_state")


class TestWhatEachTermTrains:
    @pytest.fixture
    def trained_by(self, judge, make_network):
        def trained_by(term, reinforce_core):
            """Modules with a parameter to which the term's gradient is not exactly zero."""
            network = make_network(reinforce_core=reinforce_core)
            reinforce = Reinforce(Learned(nn.Linear(256, 1)), maximize=True)
            *_, objective = judge(reinforce, network=network)
            getattr(objective, term).backward()
            parts = {**dict(network.named_children()), "baseline": reinforce}
            return {
                name
                for name, part in parts.items()
                if any(p.grad is not None and p.grad.any() for p in part.parameters())
            }

        return trained_by

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_cross_entropy_trains_all_but_the_gaze(self, trained_by, reinforce_core):
        assert trained_by("cross_entropy", reinforce_core) == {*LEARNERS, "classifier"}

    def test_the_policy_trains_the_gaze_alone(self, trained_by):
        assert trained_by("policy", reinforce_core=False) == {"locator"}

    def test_the_policy_trains_the_core_too_if_asked_to(self, trained_by):
        assert trained_by("policy", reinforce_core=True) == {*LEARNERS, "locator"}

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_the_probe_loss_trains_the_probe_alone(self, trained_by, reinforce_core):
        assert trained_by("probe", reinforce_core) == {"probe"}

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_the_baseline_trains_itself_alone(self, trained_by, reinforce_core):
        assert trained_by("baseline", reinforce_core) == {"baseline"}


class TestExpectation:
    """The gradient, integrated over all that is drawn, is that of the expected reward, which has a closed form.

    A policy of one dimension, of which the first mean is ``a`` and the second ``b + c l``; the reward is 1 where
    the last location lies beyond a threshold. The walks of a batch are the nodes of a quadrature: the means of
    equally probable parts of the normal distribution, in every combination.
    """

    threshold = 0.2 + STD * stats.norm.ppf(0.75)  # with one move, it lies between two parts

    @pytest.fixture
    def parameters(self):
        return torch.tensor([0.2, -0.1, 0.8], dtype=torch.float64, requires_grad=True)

    def expected_reward(self, parameters, moves):
        a, b, c = parameters
        mean, std = (a, STD) if moves == 1 else (b + c * a, STD * (1 + c**2).sqrt())
        return torch.special.ndtr((mean - self.threshold) / std)

    def rollout(self, parameters, moves, rollouts):
        a, b, c = parameters
        borders = stats.norm.ppf(torch.linspace(0, 1, 513, dtype=torch.float64))
        nodes = -512 * torch.from_numpy(stats.norm.pdf(borders)).diff()
        noise = torch.cartesian_prod(*[nodes] * (moves * rollouts))
        noise = noise.reshape(len(noise), moves, rollouts).permute(1, 2, 0)
        means, locations = [], [torch.zeros_like(noise[0])]
        for t in range(moves):
            means.append(a.expand_as(noise[0]) if t == 0 else b + c * locations[-1])
            locations.append((means[-1] + STD * noise[t]).detach())
        in_the_plane = [torch.stack([x, torch.zeros_like(x)], dim=-1) for x in (*means, *locations)]
        states = torch.stack(locations).unsqueeze(-1)  # the state is the latest location
        return Rollout(states, torch.stack(in_the_plane[moves:]), torch.stack(in_the_plane[:moves]))

    def gradient(self, parameters, rollout, reinforce):
        last = rollout.locations[-1, ..., 0]
        logits = torch.stack([self.threshold - last, last - self.threshold], dim=-1)[None]
        labels = torch.ones(last.shape[1], dtype=torch.long)
        policy = hybrid_objective(logits, labels, rollout, STD, reinforce.double()).policy
        return -torch.autograd.grad(policy, parameters)[0]

    def error(self, parameters, reinforce, moves, rollouts, spoil=lambda rollout: rollout):
        truth = torch.autograd.grad(self.expected_reward(parameters, moves), parameters)[0]
        assert truth[moves - 1] > 0.3
        rollout = spoil(self.rollout(parameters, moves, rollouts))
        return (self.gradient(parameters, rollout, reinforce) - truth).abs().max().item()

    @pytest.mark.parametrize("moves", [1, 2])
    @pytest.mark.parametrize("name", ["none", "constant", "moving average", "learned"])
    def test_with_one_walk_a_picture(self, parameters, name, moves):
        torch.manual_seed(0)
        baseline = {
            "none": lambda: None,
            "constant": lambda: Constant(0.7),
            "moving average": MovingAverage,
            "learned": lambda: Learned(nn.Linear(1, 1)),
        }[name]()
        reinforce = Reinforce(baseline, maximize=True)
        for _ in range(2):  # the second time a moving average knows rewards
            assert self.error(parameters, reinforce, moves, rollouts=1) < 1e-4

    @pytest.mark.parametrize("name", ["leave-one-out", "learned + leave-one-out"])
    def test_with_two_walks_a_picture(self, parameters, name):
        baseline = LeaveOneOut(1) if name == "leave-one-out" else Sum(Learned(nn.Linear(1, 1)), LeaveOneOut(1))
        assert self.error(parameters, Reinforce(baseline, maximize=True), moves=1, rollouts=2) < 1e-4

    def test_the_density_of_clipped_locations_would_be_wrong(self, parameters):
        def clip(rollout):
            return rollout._replace(locations=rollout.locations.clamp(-0.5, 0.5))

        assert self.error(parameters, Reinforce(maximize=True), moves=1, rollouts=1, spoil=clip) > 0.1

    def test_credit_for_the_last_move_alone_would_be_wrong(self, parameters):
        def forget(rollout):
            return rollout._replace(means=rollout.means[1:], states=rollout.states[1:])

        assert self.error(parameters, Reinforce(maximize=True), moves=2, rollouts=1, spoil=forget) > 0.1


class Shuffled(Reinforce):
    """Gives each picture the reward of another one."""

    def forward(self, log_prob, signal, context=None, mask=None):
        return super().forward(log_prob, signal[:, torch.randperm(signal.shape[1])], context, mask)


class TestLearning:
    """Two classes that differ in the leftmost column of pixels only, which the first glimpse does not show."""

    def train(self, reinforce, seed, pictures=100, std=0.7):
        """Where the gaze goes at the end, from -1 at the left border to 1, and how often the class is wrong."""
        torch.manual_seed(seed)
        labels = torch.arange(pictures) % 2
        images = torch.zeros(pictures, 1, 6, 6)
        images[..., 0] = 0.5 + 0.5 * labels.reshape(-1, 1, 1)
        network = RecurrentAttentionNetwork(GlimpseSensor((1, 6, 6), size=2), classes=2)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        first = torch.zeros(2, pictures, 2)
        for _ in range(50):
            rollout = network.rollout(images, first, torch.randn(1, 2, pictures, 2), std)
            objective = hybrid_objective(network.logits(rollout.states), labels, rollout, std, reinforce)
            optimizer.zero_grad()
            (objective.cross_entropy + objective.policy).backward()
            optimizer.step()
        rollout = network.rollout(images, first, torch.zeros(1, 2, pictures, 2), 0.0)
        wrong = network.classifier(rollout.states[-1]).argmax(-1) != labels
        return rollout.means[..., 1].mean().item(), wrong.float().mean().item()

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_gaze_learns_where_to_look(self, seed):
        place, error = self.train(Reinforce(LeaveOneOut(1), maximize=True), seed)
        assert place < -2.5
        assert error == 0

    @pytest.mark.parametrize("seed", [0, 1])
    def test_rewards_permuted_across_the_batch_teach_it_nothing(self, seed):
        place, _ = self.train(Shuffled(LeaveOneOut(1), maximize=True), seed)
        assert abs(place) < 2.5

    def test_costs_in_the_place_of_rewards_drive_it_away(self):
        place, error = self.train(Reinforce(LeaveOneOut(1), maximize=False), seed=0)
        assert place > 0
        assert error == 0.5
