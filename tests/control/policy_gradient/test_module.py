import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from zoo.control._evaluation import EpisodeEvaluator, evaluate_policy
from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.rollout import Rollout
from zoo.control.rollout_dataset import RolloutBatch, RolloutDataset
from zoo.gradients import BASELINES
from zoo.training import NonFiniteError
from zoo.training._resume import ExactResume

pytestmark = [
    pytest.mark.usefixtures("without_type_checks"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


def make(baseline="learned", scale=False, **options):
    torch.manual_seed(0)
    estimator = {"baseline": baseline, "scale": scale}
    return PolicyGradient([4], 2, estimator=estimator, **{"hidden": [8], "value_updates": 3, **options})


def cart_pole(model, kind=RolloutDataset, num_envs=4, n_steps=16, num_rollouts=5):
    return kind(VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs)), model.policy, n_steps, num_rollouts, seed=1)


def weights(module):
    """Return the state of a module as one vector."""
    return torch.cat([part.flatten() for part in module.state_dict().values()])


def test_estimator_is_built_from_its_options():
    estimator = {"baseline": "moving_average", "decay": 0.5, "scale": True}
    reinforce = PolicyGradient([4], 2, estimator=estimator, normalize_advantage=False, ent_coef=0.0).reinforce
    assert reinforce.baseline.mean.decay == reinforce.scale.mean.decay == 0.5


class TestUpdates:
    def test_rollout_gives_one_update_of_the_policy_and_several_of_the_value_function(self, learn):
        model = make(value_updates=7)
        trainer = learn(model, cart_pole(model))
        state = trainer.optimizers[0].state
        assert {int(state[parameter]["step"]) for parameter in model.policy.parameters()} == {5}
        assert {int(state[parameter]["step"]) for parameter in model.reinforce.parameters()} == {5 * 7}
        assert trainer.global_step == 5

    def test_updates_of_the_value_function_do_not_change_the_policy(self, learn):
        models = [make(value_updates=steps) for steps in (1, 7)]
        for model in models:
            before = weights(model.policy)
            torch.manual_seed(1)
            learn(model, cart_pole(model, num_rollouts=1))
            assert not torch.equal(weights(model.policy), before)
        assert torch.equal(*(weights(model.policy) for model in models))
        assert not torch.equal(*(weights(model.reinforce) for model in models))

    def test_updates_reduce_the_error_of_the_value_function(self, learn):
        errors = []

        class Recorded(PolicyGradient):
            def fit_value(self, value, observation, returns, optimizer):
                def error():
                    return (value(observation) - returns).square().mean().item()

                before = error()
                super().fit_value(value, observation, returns, optimizer)
                errors.append((before, error()))

        model = Recorded([4], 2, hidden=[8], value_updates=30)
        learn(model, cart_pole(model))
        assert len(errors) == 5
        assert all(after < before for before, after in errors)

    @pytest.mark.parametrize("baseline", ["learned", "learned_moving_average"])
    def test_baseline_approaches_the_mean_return(self, baseline, learn):
        """A network fitted to the return instead of the residual of a running mean would double the baseline."""
        seen = []

        class Recorded(PolicyGradient):
            def log_rollout(self, objective, batch):
                mask = batch.rollout.mask
                seen.append(
                    (objective.reinforce_output.baseline[mask].mean().item(), objective.returns[mask].mean().item())
                )

        model = Recorded([4], 2, hidden=[8], value_updates=30, estimator={"baseline": baseline})
        learn(model, cart_pole(model, num_envs=16, num_rollouts=49))
        guessed, returned = seen[-1]
        assert guessed == pytest.approx(returned, rel=0.3)

    def test_rollout_used_twice_raises(self):
        model, batch = make(), RolloutBatch(make_rollout(), 12, None)
        model.log_rollout = lambda *_: None
        model.loss(batch)
        with pytest.raises(
            ValueError, match=r"ends at environment step 12 was collected before the last update, at 12"
        ):
            model.loss(batch)
        model.loss(batch._replace(env_steps=24))

    def test_rollouts_in_which_the_only_environment_resets_are_handled(self, learn):
        model = make()
        learn(model, cart_pole(model, num_envs=1, n_steps=1, num_rollouts=60))
        assert model.env_steps == 60
        assert torch.isfinite(weights(model)).all()

    def test_rollout_is_collected_by_the_policy_that_is_updated(self, learn):
        """A prefetched or reused rollout would come from an older policy."""
        acted, updated = [], []

        class Recording(RolloutDataset):
            def __iter__(self):
                for batch in super().__iter__():
                    acted.append((weights(self.policy), batch.env_steps))
                    yield batch

        class Watch(pl.Callback):
            def on_train_batch_start(self, trainer, module, batch, index):
                updated.append((weights(module.policy), batch.env_steps))

        model = make()
        learn(model, cart_pole(model, Recording), Watch(), epochs=2)
        assert len(acted) == len(updated) == 10
        assert all(torch.equal(one, other) and n == m for (one, n), (other, m) in zip(acted, updated, strict=True))
        assert len({n for _, n in acted}) == 10
        assert not torch.equal(acted[0][0], acted[1][0])

    @pytest.mark.parametrize("baseline", [*BASELINES, "3.5"])
    def test_every_baseline_trains(self, baseline, learn):
        model = make(baseline)
        before = weights(model.policy)
        learn(model, cart_pole(model, num_rollouts=2))
        assert not torch.equal(weights(model.policy), before)


class TestEnvironmentSteps:
    def test_env_steps_exclude_steps_that_only_reset(self, learn):
        counts = []

        class Recording(RolloutDataset):
            def __iter__(self):
                for batch in super().__iter__():
                    counts.append(int(batch.rollout.mask.sum()))
                    yield batch

        model = make()
        learn(model, cart_pole(model, Recording, n_steps=40))
        assert model.env_steps == sum(counts) < 5 * 40 * 4

    @pytest.mark.parametrize(("decay_steps", "reaches_zero"), [(10_000, False), (200, True)])
    def test_learning_rates_decay_over_env_steps(self, decay_steps, reaches_zero, learn):
        model = make(lr=0.02, value_lr=0.004, decay_steps=decay_steps)
        groups = learn(model, cart_pole(model)).optimizers[0].param_groups
        left = max(0.0, 1 - model.env_steps.item() / decay_steps)
        assert (left == 0) == reaches_zero
        assert [group["lr"] for group in groups] == pytest.approx([0.02 * left, 0.004 * left])

    def test_learning_rates_are_constant_without_decay_steps(self, learn):
        model = make(lr=0.02, value_lr=0.004, decay_steps=None)
        assert [group["lr"] for group in learn(model, cart_pole(model)).optimizers[0].param_groups] == [0.02, 0.004]


def make_rollout(steps=6):
    """Return a rollout of two environments with reward 1."""
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(steps, 2, 4, generator=generator)
    none, time = torch.zeros(steps, 2, dtype=torch.bool), torch.arange(steps)[:, None].expand(steps, 2)
    return Rollout(observation, none.long(), torch.ones(steps, 2), observation, none, none, ~none, time)


class TestClipping:
    def norms(self, **options):
        model = make(**options)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 100.0)
        model._clip_gradients(model.configure_optimizers()["optimizer"], num_steps=6)
        return [
            nn.utils.get_total_norm([parameter.grad for parameter in part.parameters()]).item()
            for part in (model.policy, model.reinforce)
        ]

    def test_gradient_is_clipped_per_time_step_for_the_policy_and_separately_for_the_value(self):
        assert self.norms(max_grad_norm=0.5) == pytest.approx([0.5 * 6, 0.5], rel=1e-4)

    def test_clipping_does_not_spread_a_gradient_that_is_not_finite(self):
        model = make()
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 100.0)
        first, *others = model.policy.parameters()
        first.grad.fill_(torch.nan)
        model._clip_gradients(model.configure_optimizers()["optimizer"], num_steps=6)
        assert first.grad.isnan().all()
        assert all(parameter.grad.isfinite().all() for parameter in others)

    def test_clipping_can_be_disabled(self):
        assert min(self.norms(max_grad_norm=None)) > 500

    def test_clipping_by_the_trainer_raises(self):
        """Gradient clipping of the trainer would have no effect."""
        model = make()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=1, gradient_clip_val=1.0, accelerator="cpu", **quiet)
        with pytest.raises(ValueError, match=r"gradient_clip=1.0 has no effect .* set model.max_grad_norm"):
            trainer.fit(model, cart_pole(model))


class TestLoss:
    def loss(self, monkeypatch, rollout=None, **options):
        model = make(**options)
        monkeypatch.setattr(model, "log_rollout", lambda *_: None)
        return model, model.loss(RolloutBatch(rollout or make_rollout(), 12, None))[0].item()

    def test_loss_decreases_with_entropy(self, monkeypatch):
        rollout = make_rollout()
        model, without = self.loss(monkeypatch, ent_coef=0.0)
        _, entropy = model.policy.log_prob_and_entropy(rollout.observation, rollout.action)
        entropy = entropy.sum(0).mean().item()
        _, with_entropy = self.loss(monkeypatch, ent_coef=0.1, decay_steps=None)
        assert with_entropy - without == pytest.approx(-0.1 * entropy, rel=1e-4)
        _, after_a_quarter = self.loss(monkeypatch, ent_coef=0.1, decay_steps=4 * 12)
        assert after_a_quarter - without == pytest.approx(-0.75 * 0.1 * entropy, rel=1e-4)

    def test_loss_that_is_not_finite_raises_with_its_term(self, monkeypatch):
        rollout = make_rollout()._replace(reward=torch.full((6, 2), 1e30))
        with pytest.raises(NonFiniteError, match=r"not finite at step 0: .*value"):
            self.loss(monkeypatch, rollout)


class TestStopping:
    def fitted(self, learn, **options):
        model = make(**options)
        evaluator = EpisodeEvaluator(VectorEnvAdapter(make_vector_env("CartPole-v1", 8)), monitor="eval_return_mean")
        trainer = learn(model, cart_pole(model), evaluator=evaluator, epochs=3)
        return model, trainer

    def test_training_stops_at_the_first_evaluation_that_solves_the_task(self, learn):
        model, trainer = self.fitted(learn, reward_threshold=5.0)
        assert trainer.global_step == 5
        assert model.solved_after == model.env_steps > 0

    def test_training_continues_without_stop_on_reward_threshold(self, learn):
        model, trainer = self.fitted(learn, reward_threshold=5.0, stop_on_reward_threshold=False)
        assert trainer.global_step == 15
        assert 0 < model.solved_after < model.env_steps

    def test_training_does_not_stop_below_the_threshold(self, learn):
        model, trainer = self.fitted(learn, reward_threshold=500.0)
        assert trainer.global_step == 15
        assert model.solved_after == -1

    def test_training_returns_are_recorded_but_do_not_stop_training(self, monkeypatch):
        model = make(reward_threshold=100.0)
        monkeypatch.setattr(model, "log_rollout", lambda *_: None)
        for steps, mean in ((10, None), (20, 99.0), (30, 100.0), (40, 400.0)):
            model.loss(RolloutBatch(make_rollout(), steps, mean))
            assert model.training_solved_after == (30 if steps >= 30 else -1)
        assert model.solved_after == -1

    def test_means_over_all_rollouts_of_an_epoch_are_logged(self, learn):
        seen = []

        class Recorded(PolicyGradient):
            def log_rollout(self, objective, batch):
                super().log_rollout(objective, batch)
                seen.append(objective.value_loss.item())

        model = Recorded([4], 2, hidden=[8])
        trainer = learn(model, cart_pole(model))
        assert len(seen) == 5
        assert trainer.callback_metrics["value_loss"].item() == pytest.approx(sum(seen) / 5, rel=1e-5)
        assert trainer.callback_metrics["value_loss"].item() != pytest.approx(seen[0], rel=1e-2)

    def test_metrics_of_evaluations_are_logged(self, learn):
        model, trainer = self.fitted(learn)
        figures = trainer.callback_metrics
        assert figures["env_steps"] == model.env_steps
        assert figures["eval_return_mean"] >= 8
        assert figures["greedy_return_mean"] >= 8


def test_cart_pole_is_learned(learn):
    """After a fraction of the default steps the return is far above that of a random policy, 22."""
    torch.manual_seed(0)
    model = PolicyGradient([4], 2, hidden=[32, 32])
    learn(model, cart_pole(model, num_envs=16, num_rollouts=40))
    measured = evaluate_policy(model.policy, VectorEnvAdapter(make_vector_env("CartPole-v1", 40)), seed=2)
    assert measured.stochastic.low > 60


def test_training_resumed_from_a_checkpoint_equals_an_uninterrupted_one(learn, differences, tmp_path):
    """Two epochs without interruption, or resumed after the first one."""
    whole = make()
    learn(whole, cart_pole(whole), ExactResume(), epochs=2)
    first = make()
    learn(first, cart_pole(first), ExactResume()).save_checkpoint(tmp_path / "half.ckpt")
    second = make()
    torch.manual_seed(99)  # the new process may sample first
    learn(second, cart_pole(second), ExactResume(), ckpt_path=tmp_path / "half.ckpt", epochs=2)
    assert differences(whole.state_dict(), second.state_dict()) == []
    assert differences(whole.state_dict(), first.state_dict()) != []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.01}, "gamma must be between 0 and 1, got 1.01"),
        ({"gamma": -0.5}, "gamma must be between 0 and 1"),
        ({"gae_lambda": 2.0}, "gae_lambda must be between 0 and 1"),
        ({"value_updates": 0}, "value_updates must be a whole number of 1 or more"),
        ({"lr": -1.0}, "lr must be above 0, got -1.0"),
        ({"value_lr": 0.0}, "value_lr must be above 0, got 0.0"),
        ({"ent_coef": -0.1}, "ent_coef must be 0 or more, got -0.1"),
        ({"decay_steps": 0}, "decay_steps must be a whole number of 1 or more, or null, got 0"),
        ({"decay_steps": -5}, "decay_steps must be a whole number of 1 or more, or null, got -5"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be above 0, or null, got -1.0"),
        ({"hidden": [0]}, r"hidden layers must have at least 1 unit each, got hidden=\[0\]"),
        ({"baseline": "tea_leaves"}, "no baseline 'tea_leaves'"),
        ({"scale": True, "ent_coef": 0.0}, "model.normalize_advantage would undo"),
        ({"scale": True, "normalize_advantage": False}, "set model.normalize_advantage=false model.ent_coef=0"),
    ],
    ids=str,
)
def test_invalid_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
