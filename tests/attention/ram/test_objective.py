import pytest
import torch
from scipy import stats
from torch import nn

from zoo.attention import GlimpseSensor, HybridObjective, RecurrentAttentionNetwork, Trajectory, hybrid_objective
from zoo.gradients import (
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    ReinforceOutput,
    SumBaseline,
)

STD = 0.3


def sample(network, images, num_samples=2, steps=2, std=STD):
    """A sampled trajectory, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(num_samples, len(images), 2, generator=generator) * 2 - 1
    noise = torch.randn(steps, num_samples, len(images), 2, generator=generator)
    return network.sample_trajectory(images / 255, first, noise, std)


@pytest.fixture
def evaluate(make_network, images, labels):
    """A trajectory, the logits at its end, and the objective."""

    def evaluate(reinforce, std=STD, network=None, **options):
        network = network or make_network()
        trajectory = sample(network, images, std=std, **options)
        logits = network.logits(trajectory.states)
        return trajectory, logits, hybrid_objective(logits, labels, trajectory, std, reinforce)

    return evaluate


def log_density(trajectory, std, locations=None):
    """Log-density of the sampled locations, by scipy: (steps, samples, images)."""
    sampled = trajectory.locations[1:] if locations is None else locations
    return torch.from_numpy(stats.norm(trajectory.means.detach(), std).logpdf(sampled).sum(-1)).float()


class TestTerms:
    def test_cross_entropy_is_the_mean_over_all_trajectories(self, evaluate, labels):
        _, logits, objective = evaluate(Reinforce(maximize=True))
        probability = logits[-1].softmax(-1).gather(-1, labels.expand(2, -1)[..., None])
        torch.testing.assert_close(objective.cross_entropy, -probability.log().mean())

    def test_probe_loss_is_the_mean_cross_entropy_over_all_glimpses_but_the_last(self, evaluate, labels, make_network):
        network = make_network()
        nn.init.normal_(network.probe.weight, generator=torch.Generator().manual_seed(0))
        _, logits, objective = evaluate(Reinforce(maximize=True), network=network)
        probability = logits[:-1].softmax(-1).gather(-1, labels.expand(2, 2, -1)[..., None])
        torch.testing.assert_close(objective.probe_loss, -probability.log().mean())

    def test_each_trajectory_has_its_own_reward(self, evaluate, labels):
        _, logits, objective = evaluate(Reinforce(maximize=True))
        assert objective.reward.tolist() == (logits[-1].argmax(-1) == labels).float().tolist()
        assert objective.reward.shape == (2, 8)
        assert objective.reward.unique().tolist() == [0, 1]

    def test_policy_loss_is_summed_over_steps_and_averaged_over_trajectories(self, evaluate):
        trajectory, _, objective = evaluate(Reinforce(ConstantBaseline(0.25), maximize=True))
        weighted = log_density(trajectory, STD) * (objective.reward - 0.25)
        torch.testing.assert_close(objective.policy_loss, -weighted.sum() / (2 * 8), rtol=1e-5, atol=1e-5)

    def test_baseline_loss_is_averaged_over_steps_and_trajectories(self, evaluate):
        net = nn.Linear(256, 1)
        trajectory, _, objective = evaluate(Reinforce(LearnedBaseline(net), maximize=True))
        prediction = net(trajectory.states[:-1]).squeeze(-1)
        torch.testing.assert_close(objective.reinforce.baseline, prediction.detach())
        torch.testing.assert_close(objective.baseline_loss, (prediction - objective.reward).square().mean())

    def test_leave_one_out_compares_trajectories_of_the_same_image(self, evaluate):
        *_, objective = evaluate(Reinforce(LeaveOneOutBaseline(1), maximize=True))
        difference = objective.reward[0] - objective.reward[1]
        expected = torch.stack([difference, -difference]).expand(2, 2, 8)
        assert difference.any()
        torch.testing.assert_close(objective.reinforce.advantage, expected)

    def test_exactly_the_sampled_locations_get_credit(self, evaluate):
        trajectory, _, objective = evaluate(Reinforce(maximize=True), steps=3)
        assert len(objective.reinforce.loss) == len(trajectory.states) - 1 == 3

    def test_without_steps_policy_and_baseline_loss_are_zero(self, evaluate):
        *_, objective = evaluate(Reinforce(LearnedBaseline(nn.Linear(256, 1)), maximize=True), steps=0)
        assert objective.policy_loss == objective.baseline_loss == 0
        assert objective.cross_entropy > 0

    def test_given_locations_get_a_reward_but_no_credit(self, make_network, images, labels):
        network = make_network()
        trajectory = network.trajectory_at(images / 255, torch.zeros(3, 1, 8, 2))
        logits = network.logits(trajectory.states)
        objective = hybrid_objective(logits, labels, trajectory, STD, Reinforce(maximize=True))
        assert objective.reward.sum() > 0
        assert objective.reinforce.loss.shape == (0, 1, 8)
        assert objective.policy_loss == 0


class TestDensity:
    def test_log_prob_is_that_of_the_normal_distribution(self, evaluate):
        trajectory, _, objective = evaluate(Reinforce(maximize=True), std=0.7)
        expected = -log_density(trajectory, 0.7) * objective.reward
        torch.testing.assert_close(objective.reinforce.loss, expected, rtol=1e-5, atol=1e-5)

    def test_log_prob_is_that_of_the_raw_sample_if_the_sensor_clips(self, evaluate):
        trajectory, _, objective = evaluate(Reinforce(maximize=True), std=2.0)
        sampled = trajectory.locations[1:]
        assert (sampled.abs() > 1).float().mean() > 0.5
        raw, clipped = log_density(trajectory, 2.0), log_density(trajectory, 2.0, sampled.clamp(-1, 1))
        torch.testing.assert_close(objective.policy_loss, -(raw * objective.reward).sum(0).mean(), rtol=1e-5, atol=1e-5)
        assert abs(objective.policy_loss + (clipped * objective.reward).sum(0).mean()) > 0.1


LEARNERS = (
    "image_encoder",
    "location_encoder",
    "image_to_glimpse",
    "location_to_glimpse",
    "glimpse_to_hidden",
    "hidden_to_hidden",
)


class TestGradientOfEachTerm:
    @pytest.fixture
    def trained_by(self, evaluate, make_network):
        def trained_by(term, reinforce_core):
            """Modules with a parameter to which the term's gradient is not exactly zero."""
            network = make_network(reinforce_core=reinforce_core)
            reinforce = Reinforce(LearnedBaseline(nn.Linear(256, 1)), maximize=True)
            *_, objective = evaluate(reinforce, network=network)
            getattr(objective, term).backward()
            parts = {**dict(network.named_children()), "baseline": reinforce}
            return {
                name
                for name, part in parts.items()
                if any(p.grad is not None and p.grad.any() for p in part.parameters())
            }

        return trained_by

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_cross_entropy_trains_all_but_the_location_network(self, trained_by, reinforce_core):
        assert trained_by("cross_entropy", reinforce_core) == {*LEARNERS, "classifier"}

    def test_policy_loss_trains_the_location_network_only(self, trained_by):
        assert trained_by("policy_loss", reinforce_core=False) == {"location_net"}

    def test_policy_loss_trains_the_core_too_with_reinforce_core(self, trained_by):
        assert trained_by("policy_loss", reinforce_core=True) == {*LEARNERS, "location_net"}

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_probe_loss_trains_the_probe_only(self, trained_by, reinforce_core):
        assert trained_by("probe_loss", reinforce_core) == {"probe"}

    @pytest.mark.parametrize("reinforce_core", [True, False])
    def test_baseline_loss_trains_the_baseline_only(self, trained_by, reinforce_core):
        assert trained_by("baseline_loss", reinforce_core) == {"baseline"}


class TestExpectation:
    """The gradient, integrated over the noise, equals that of the expected reward, which has a closed form.

    A policy of one dimension, of which the first mean is ``a`` and the second ``b + c l``; the reward is 1 where
    the last location lies beyond a threshold. The trajectories of a batch are the nodes of a quadrature: the means of
    equally probable parts of the normal distribution, in every combination.
    """

    threshold = 0.2 + STD * stats.norm.ppf(0.75)  # with one step, it lies between two parts

    @pytest.fixture
    def parameters(self):
        return torch.tensor([0.2, -0.1, 0.8], dtype=torch.float64, requires_grad=True)

    def expected_reward(self, parameters, steps):
        a, b, c = parameters
        mean, std = (a, STD) if steps == 1 else (b + c * a, STD * (1 + c**2).sqrt())
        return torch.special.ndtr((mean - self.threshold) / std)

    def trajectory(self, parameters, steps, num_samples):
        a, b, c = parameters
        borders = stats.norm.ppf(torch.linspace(0, 1, 513, dtype=torch.float64))
        nodes = -512 * torch.from_numpy(stats.norm.pdf(borders)).diff()
        noise = torch.cartesian_prod(*[nodes] * (steps * num_samples))
        noise = noise.reshape(len(noise), steps, num_samples).permute(1, 2, 0)
        means, locations = [], [torch.zeros_like(noise[0])]
        for t in range(steps):
            means.append(a.expand_as(noise[0]) if t == 0 else b + c * locations[-1])
            locations.append((means[-1] + STD * noise[t]).detach())
        points = [torch.stack([x, torch.zeros_like(x)], dim=-1) for x in (*means, *locations)]
        states = torch.stack(locations).unsqueeze(-1)  # the state is the latest location
        return Trajectory(states, torch.stack(points[steps:]), torch.stack(points[:steps]))

    def gradient(self, parameters, trajectory, reinforce):
        last = trajectory.locations[-1, ..., 0]
        logits = torch.stack([self.threshold - last, last - self.threshold], dim=-1)[None]
        labels = torch.ones(last.shape[1], dtype=torch.long)
        policy = hybrid_objective(logits, labels, trajectory, STD, reinforce.double()).policy_loss
        return -torch.autograd.grad(policy, parameters)[0]

    def error(self, parameters, reinforce, steps, num_samples, spoil=lambda trajectory: trajectory):
        exact = torch.autograd.grad(self.expected_reward(parameters, steps), parameters)[0]
        assert exact[steps - 1] > 0.3
        trajectory = spoil(self.trajectory(parameters, steps, num_samples))
        return (self.gradient(parameters, trajectory, reinforce) - exact).abs().max().item()

    @pytest.mark.parametrize("steps", [1, 2])
    @pytest.mark.parametrize("name", ["none", "constant", "moving average", "learned"])
    def test_gradient_is_exact_with_one_trajectory_per_image(self, parameters, name, steps):
        torch.manual_seed(0)
        baseline = {
            "none": lambda: None,
            "constant": lambda: ConstantBaseline(0.7),
            "moving average": MovingAverageBaseline,
            "learned": lambda: LearnedBaseline(nn.Linear(1, 1)),
        }[name]()
        reinforce = Reinforce(baseline, maximize=True)
        for _ in range(2):  # the second time a moving average knows rewards
            assert self.error(parameters, reinforce, steps, num_samples=1) < 1e-4

    @pytest.mark.parametrize("name", ["leave-one-out", "learned + leave-one-out"])
    def test_gradient_is_exact_with_two_trajectories_per_image(self, parameters, name):
        baseline = (
            LeaveOneOutBaseline(1)
            if name == "leave-one-out"
            else SumBaseline(LearnedBaseline(nn.Linear(1, 1)), LeaveOneOutBaseline(1))
        )
        assert self.error(parameters, Reinforce(baseline, maximize=True), steps=1, num_samples=2) < 1e-4

    def test_log_prob_of_clipped_locations_is_biased(self, parameters):
        def clip(trajectory):
            return trajectory._replace(locations=trajectory.locations.clamp(-0.5, 0.5))

        assert self.error(parameters, Reinforce(maximize=True), steps=1, num_samples=1, spoil=clip) > 0.1

    def test_credit_for_the_last_step_only_is_biased(self, parameters):
        def forget(trajectory):
            return trajectory._replace(means=trajectory.means[1:], states=trajectory.states[1:])

        assert self.error(parameters, Reinforce(maximize=True), steps=2, num_samples=1, spoil=forget) > 0.1


class ShuffledReinforce(Reinforce):
    """Permutes the rewards across the batch."""

    def forward(self, log_prob, signal, context=None, mask=None):
        return super().forward(log_prob, signal[:, torch.randperm(signal.shape[1])], context, mask)


class TestLearning:
    """Two classes that differ in the leftmost column of pixels only, which the first glimpse does not cover."""

    def train(self, reinforce, seed, num_images=100, std=0.7):
        """Final horizontal mean of the policy, from -1 at the left border to 1, and the error rate."""
        torch.manual_seed(seed)
        labels = torch.arange(num_images) % 2
        images = torch.zeros(num_images, 1, 6, 6)
        images[..., 0] = 0.5 + 0.5 * labels.reshape(-1, 1, 1)
        network = RecurrentAttentionNetwork(GlimpseSensor((1, 6, 6), patch_size=2), num_classes=2)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        first = torch.zeros(2, num_images, 2)
        for _ in range(50):
            trajectory = network.sample_trajectory(images, first, torch.randn(1, 2, num_images, 2), std)
            objective = hybrid_objective(network.logits(trajectory.states), labels, trajectory, std, reinforce)
            optimizer.zero_grad()
            (objective.cross_entropy + objective.policy_loss).backward()
            optimizer.step()
        trajectory = network.sample_trajectory(images, first, torch.zeros(1, 2, num_images, 2), 0.0)
        wrong = network.classifier(trajectory.states[-1]).argmax(-1) != labels
        return trajectory.means[..., 1].mean().item(), wrong.float().mean().item()

    @pytest.mark.parametrize("seed", [0, 1])
    def test_policy_learns_where_the_classes_differ(self, seed):
        mean, error = self.train(Reinforce(LeaveOneOutBaseline(1), maximize=True), seed)
        assert mean < -2.5
        assert error == 0

    @pytest.mark.parametrize("seed", [0, 1])
    def test_policy_learns_nothing_from_permuted_rewards(self, seed):
        mean, _ = self.train(ShuffledReinforce(LeaveOneOutBaseline(1), maximize=True), seed)
        assert abs(mean) < 2.5

    def test_policy_moves_away_with_costs_in_place_of_rewards(self):
        mean, error = self.train(Reinforce(LeaveOneOutBaseline(1), maximize=False), seed=0)
        assert mean > 0
        assert error == 0.5


class TestTrainingMetrics:
    @pytest.fixture
    def metrics(self):
        """Metrics of two steps over four images, of which three are classified correctly."""

        def metrics(baseline, reward=(1.0, 0.0, 1.0, 1.0), locations=None):
            reward = torch.tensor([reward])
            baseline = torch.as_tensor(baseline)
            steps, advantage = len(baseline), reward - baseline
            out = ReinforceOutput(advantage, advantage.mean(), advantage, baseline)
            scalar = torch.tensor
            objective = HybridObjective(scalar(0.7), scalar(-0.2), scalar(0.1), scalar(2.0), reward, out)
            locations = torch.zeros(steps + 1, 1, 4, 2) if locations is None else locations
            trajectory = Trajectory(torch.zeros(steps + 1, 1, 4, 3), locations, locations[1:])
            return {name: value.item() for name, value in objective.metrics(trajectory).items()}

        return metrics

    def test_metrics_equal_their_definitions(self, metrics):
        assert metrics([[[0.5, 0.5, 0.5, 0.5]], [[1.0, 0.0, 1.0, 0.5]]]) == pytest.approx(
            {
                "train_error": 1 / 4,
                "cross_entropy": 0.7,
                "policy_loss": -0.2,
                "baseline_loss": 0.1,
                "reward_variance": 3 / 16,
                "advantage_mean": (3 * 0.5 - 0.5 + 0.5) / 8,
                "advantage_variance": (5 * 0.25) / 8 - (1.5 / 8) ** 2,
                "baseline_r2": 1 - ((5 * 0.25) / 8 - (1.5 / 8) ** 2) / (3 / 16),
                "clipped_locations": 0,
            }
        )

    def test_baseline_r2_is_one_for_a_perfect_baseline(self, metrics):
        assert metrics([[[1.0, 0.0, 1.0, 1.0]]])["baseline_r2"] == 1

    def test_baseline_r2_is_zero_for_a_constant_baseline(self, metrics):
        assert metrics([[[0.3, 0.3, 0.3, 0.3]]])["baseline_r2"] == pytest.approx(0)

    def test_baseline_r2_is_zero_if_all_rewards_are_equal(self, metrics):
        assert metrics([[[0.3, 0.1, 0.3, 0.9]]], reward=(1.0, 1.0, 1.0, 1.0))["baseline_r2"] == 0

    def test_location_is_clipped_if_one_coordinate_is_and_the_first_location_does_not_count(self, metrics):
        locations = torch.zeros(2, 1, 4, 2)
        locations[1, 0, :, :] = torch.tensor([[1.5, 0.0], [0.0, -1.1], [1.0, -1.0], [0.3, 0.9]])
        locations[0] = 7
        assert metrics([[[0.5, 0.5, 0.5, 0.5]]], locations=locations)["clipped_locations"] == 0.5

    def test_policy_metrics_are_missing_if_the_locations_were_given(self, metrics):
        assert metrics(torch.zeros(0, 1, 4)) == pytest.approx({"train_error": 1 / 4, "cross_entropy": 0.7})
