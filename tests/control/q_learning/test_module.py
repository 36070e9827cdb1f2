import gymnasium
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import greedy_policy, policy_evaluation, start_value, value_iteration
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.q_learning.module import QLearning
from zoo.control.q_learning.replay_buffer import Transitions
from zoo.control.rollout import Rollout
from zoo.control.rollout_dataset import RolloutBatch, RolloutDataset
from zoo.training._resume import ExactResume

pytestmark = [
    pytest.mark.usefixtures("without_type_checks"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


def cliff(horizon=50):
    mdp = FiniteMDP.from_gymnasium(gymnasium.make("CliffWalking-v1", max_episode_steps=horizon), gamma=0.9)
    return mdp, VectorEnvAdapter(MDPVectorEnv(mdp, num_envs=1))


def textbook(rollouts, states, actions, gamma, step_size):
    """Textbook Q-learning, one step after the other."""
    table = [[0.0] * actions for _ in range(states)]
    visits = [[0] * actions for _ in range(states)]
    for batch in rollouts:
        for s, a, r, next_observation, terminated, _, mask, _ in zip(
            *(x[:, 0].tolist() for x in batch.rollout), strict=True
        ):
            if mask:
                visits[s][a] += 1
                target = r + (0.0 if terminated else gamma * max(table[next_observation]))
                table[s][a] += step_size(visits[s][a]) * (target - table[s][a])
    return torch.tensor(table)


class TestTable:
    @pytest.mark.parametrize(
        ("options", "step_size"),
        [
            ({"lr": 0.5, "visit_power": 0.0}, lambda n: 0.5),
            ({"lr": 1.0, "visit_power": 0.7}, lambda n: n**-0.7),
        ],
        ids=["fixed", "falling"],
    )
    def test_table_learns_as_the_textbook_algorithm(self, learn, options, step_size):
        """Rollouts of one step of one environment are batches of one element."""
        torch.manual_seed(0)
        mdp, envs = cliff()
        model = QLearning(
            mdp.num_states, mdp.num_actions, gamma=0.9, exploration_initial=0.5, exploration_steps=200, **options
        )
        seen = []

        class Recording(RolloutDataset):
            def __iter__(self):
                for batch in super().__iter__():
                    seen.append(batch)
                    yield batch

        learn(model, Recording(envs, model.policy, n_steps=1, num_rollouts=400, seed=1))
        expected = textbook(seen, mdp.num_states, mdp.num_actions, 0.9, step_size)
        assert (expected != 0).sum() > 50
        torch.testing.assert_close(model.policy.q.values.data, expected, rtol=1e-4, atol=1e-4)
        without_discount = textbook(seen, mdp.num_states, mdp.num_actions, 1.0, step_size)
        assert (model.policy.q.values - without_discount).abs().max() > 0.1
        assert model.env_steps == sum(batch.rollout.mask.sum() for batch in seen)

    def test_table_bootstraps_after_truncation_and_not_after_termination(self, learn):
        model = QLearning(observation_shape=3, num_actions=1, gamma=0.5, lr=1.0, visit_power=0.0)
        model.policy.q.values.data[2] = 8.0
        rollout = make_rollout(
            state=[[0, 1]], next_observation=[[2, 2]], terminated=[[True, False]], done=[[True, True]]
        )
        learn(model, DataLoader([RolloutBatch(rollout, 2, None)], batch_size=None))
        assert model.policy.q.values[:, 0].tolist() == [1, 5, 8]

    def test_table_ignores_the_step_between_two_episodes(self, learn):
        model = QLearning(observation_shape=3, num_actions=1, gamma=0.5)
        learn(model, DataLoader([RolloutBatch(make_rollout(mask=[[False, True]]), 1, None)], batch_size=None))
        assert model.policy.q.values[:, 0].tolist() == [0, 1, 0]
        assert model.visits.tolist() == [0, 1, 0]


def make_rollout(
    state=((0, 1),), next_observation=((2, 2),), terminated=((False, False),), done=None, mask=((True, True),)
):
    """One step of two environments, action 0, reward 1."""
    state, next_observation, terminated, mask = map(torch.tensor, (state, next_observation, terminated, mask))
    zero = torch.zeros_like(state)
    done = terminated if done is None else torch.tensor(done)
    return Rollout(state, zero, torch.ones(state.shape), next_observation, terminated, done, mask, zero)


class TestConvergence:
    def test_table_learns_the_optimal_path_along_the_cliff(self, learn):
        pl.seed_everything(0, verbose=False)
        mdp = FiniteMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), gamma=0.99)
        model = QLearning(mdp.num_states, mdp.num_actions, exploration_steps=100_000)
        envs = VectorEnvAdapter(MDPVectorEnv(mdp, num_envs=128))
        learn(model, RolloutDataset(envs, model.policy, n_steps=4, num_rollouts=400, seed=0))
        values = policy_evaluation(mdp, greedy_policy(model.policy.q.values.detach().double()))
        assert start_value(mdp, values) == pytest.approx(start_value(mdp, value_iteration(mdp).amax(-1)).item())


NETWORK = {
    "buffer_size": 2000,
    "batch_size": 16,
    "gradient_steps": 3,
    "hidden": [16],
    "lr": 1e-3,
    "target_update_interval": 5,
}


def cart_pole(model, num_rollouts=8):
    return RolloutDataset(
        VectorEnvAdapter(make_vector_env("CartPole-v1", 4)), model.policy, n_steps=8, num_rollouts=num_rollouts, seed=0
    )


class TestNetwork:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"double": True},
            {"dueling": True},
            {"n_steps": 3},
            {"loss": "huber"},
            {"buffer_size": 0, "gradient_steps": 1, "target_update_interval": 0},
        ],
        ids=str,
    )
    def test_network_learns_with_every_option(self, learn, options):
        torch.manual_seed(0)
        model = QLearning((4,), 2, **{**NETWORK, **options})
        before = [weight.clone() for weight in model.policy.q.parameters()]
        trainer = learn(model, cart_pole(model))
        assert all((old != new).any() for old, new in zip(before, model.policy.q.parameters(), strict=True))
        assert trainer.global_step == (8 if options.get("buffer_size") == 0 else 24)

    def test_network_waits_for_learning_starts(self, learn):
        model = QLearning((4,), 2, **NETWORK, learning_starts=100)
        trainer = learn(model, cart_pole(model))
        assert trainer.global_step == model.num_updates == 3 * sum(32 * (i + 1) - 1 >= 100 for i in range(8))

    def test_network_waits_until_n_step_returns_are_complete(self, learn):
        """The first rollout has eight steps, fewer than ten."""
        model = QLearning((4,), 2, **NETWORK, n_steps=10)
        assert learn(model, cart_pole(model, num_rollouts=3)).global_step == 3 * 2

    def test_learning_rate_decays_to_zero(self, learn):
        model = QLearning((4,), 2, **NETWORK, lr_decay_steps=200)
        trainer = learn(model, cart_pole(model))
        assert trainer.optimizers[0].param_groups[0]["lr"] == 0

    def test_exploration_follows_its_schedule(self, learn):
        model = QLearning((4,), 2, **NETWORK, exploration_initial=0.8, exploration_final=0.2, exploration_steps=1000)
        learn(model, cart_pole(model, num_rollouts=2))
        assert model.policy.parameter.item() == pytest.approx(0.8 - 0.6 * model.env_steps.item() / 1000)


class TestTargetNetwork:
    @pytest.mark.parametrize("double", [False, True])
    def test_target_network_evaluates_the_action_that_double_q_learning_selects_online(self, double):
        model = QLearning((4,), 2, **NETWORK, double=double, gamma=0.5)
        for parameter in model.parameters():
            parameter.data.zero_()
        model.policy.q.layers[-1].bias.data[:] = torch.tensor([2.0, 1.0])
        model.target.layers[-1].bias.data[:] = torch.tensor([10.0, 20.0])
        one, never = torch.ones(1), torch.zeros(1, dtype=torch.bool)
        batch = Transitions(torch.zeros(1, 4), never.long(), one, never, torch.zeros(1, 4), 0.5 * one)
        target = 1 + 0.5 * (10 if double else 20)
        assert model.loss(batch).item() == (target - 2) ** 2 / 2

    @pytest.mark.parametrize(("mix", "every"), [(1.0, 5), (0.25, 1)], ids=["hard", "soft"])
    def test_target_network_is_updated_by_tau_and_not_trained(self, learn, mix, every):
        torch.manual_seed(0)
        model = QLearning((4,), 2, **{**NETWORK, "gradient_steps": 1, "target_update_interval": every, "tau": mix})
        name = "layers.0.weight"
        expected, history = model.target.get_parameter(name).clone(), []

        class Watch(pl.Callback):
            def on_train_batch_end(self, trainer, module, *rest):
                history.append(module.policy.q.get_parameter(name).detach().clone())

        learn(model, cart_pole(model, num_rollouts=12), Watch())
        for step, weight in enumerate(history, start=1):
            if step % every == 0:
                expected = expected + mix * (weight - expected)
        torch.testing.assert_close(model.target.get_parameter(name), expected)
        assert not torch.equal(expected, history[-1])
        assert all(weight.grad is None for weight in model.target.parameters())


@pytest.mark.parametrize("start", ["table", "network"])
def test_training_resumed_from_a_checkpoint_equals_an_uninterrupted_one(start, learn, differences, tmp_path):
    """Two epochs without interruption, or resumed after the first one."""

    def make():
        pl.seed_everything(3, verbose=False)
        if start == "network":
            model = QLearning((4,), 2, **NETWORK, n_steps=2)
            return model, cart_pole(model)
        mdp, envs = cliff()
        model = QLearning(mdp.num_states, mdp.num_actions)
        return model, RolloutDataset(envs, model.policy, n_steps=4, num_rollouts=20, seed=0)

    whole, play = make()
    learn(whole, play, ExactResume(), epochs=2)
    first, play = make()
    learn(first, play, ExactResume()).save_checkpoint(tmp_path / "half.ckpt")
    second, play = make()
    torch.manual_seed(99)  # the new process may sample first
    learn(second, play, ExactResume(), ckpt_path=tmp_path / "half.ckpt", epochs=2)
    assert differences(whole.state_dict(), second.state_dict()) == []
    assert differences(whole.state_dict(), first.state_dict()) != []
    if start == "network":
        assert differences(whole.replay_buffer.state_dict(), second.replay_buffer.state_dict()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, "gamma must be between 0 and 1, got 1.5"),
        ({"lr": 3.0}, "lr must be above 0 and at most 1 for a table, got 3"),
        ({"visit_power": -1.0}, "visit_power must be 0 or more, got -1"),
        ({"buffer_size": 100, "batch_size": 0}, "batch_size must be a whole number of 1 or more, got 0"),
        ({"buffer_size": 100, "gradient_steps": 0}, "gradient_steps must be a whole number of 1 or more, got 0"),
        ({"hidden": [16]}, r"hidden=\[16\] needs a network: choose model=dqn, or hidden=\[128, 128\]"),
        ({"gradient_steps": 8}, "gradient_steps=8 needs a replay buffer"),
        ({"tau": 0.5}, "tau=0.5 needs a target network"),
        ({"exploration_initial": 1.5}, "the epsilon of exploration=epsilon_greedy must be between 0 and 1, got 1.5"),
        ({"exploration_final": -0.1}, "the epsilon of exploration=epsilon_greedy must be between 0 and 1, got -0.1"),
        ({"loss": "cubic"}, "no loss 'cubic'"),
        ({"n_steps": 3}, "n_steps=3 needs a replay buffer"),
        ({"double": True}, "double=True needs a target network"),
        ({"lr_decay_steps": 100}, "lr_decay_steps=100 needs a network"),
        ({"exploration": "optimism"}, "no exploration 'optimism'"),
    ],
)
def test_invalid_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        QLearning(observation_shape=16, num_actions=4, **options)
