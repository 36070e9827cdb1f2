from itertools import permutations

import pytest
import torch

from zoo.control.q_learning.loss import q_learning_target, td_loss, visit_weights


class TestQLearningTarget:
    reward = torch.tensor([1.0, 1.0])
    next_values = torch.tensor([[2.0, 6.0], [2.0, 6.0]])
    over = torch.tensor([False, True])

    def test_target_bootstraps_unless_the_episode_terminated(self):
        assert q_learning_target(self.reward, self.over, self.next_values, 0.5).tolist() == [4, 1]

    def test_target_ignores_values_after_termination(self):
        spoiled = torch.tensor([[2.0, 6.0], [float("nan"), float("inf")]])
        assert q_learning_target(self.reward, self.over, spoiled, 0.5).tolist() == [4, 1]

    def test_target_discounts_each_element_by_its_number_of_steps(self):
        discount = torch.tensor([0.5, 0.25])
        assert q_learning_target(
            self.reward, torch.zeros(2, dtype=torch.bool), self.next_values, discount
        ).tolist() == [4, 2.5]

    def test_target_evaluates_the_selected_action(self):
        q_selector = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        nothing_ends = torch.zeros(2, dtype=torch.bool)
        assert q_learning_target(self.reward, nothing_ends, self.next_values, 0.5, q_selector).tolist() == [2, 4]

    def test_target_has_no_gradient(self):
        next_values = self.next_values.clone().requires_grad_()
        assert not q_learning_target(self.reward, self.over, next_values, 0.5).requires_grad


class TestTDLoss:
    errors = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])

    @pytest.mark.parametrize(
        ("kind", "gradient"), [("squared", [3, 0.5, 0, -0.5, -3]), ("huber", [1, 0.5, 0, -0.5, -1])]
    )
    def test_gradient_is_minus_the_td_error_clipped_by_huber(self, kind, gradient):
        values = torch.ones(5, requires_grad=True)
        td_loss(values, values + self.errors, kind).sum().backward()
        assert values.grad.tolist() == pytest.approx(gradient)

    def test_unknown_loss_raises(self):
        with pytest.raises(ValueError, match="no loss 'cubic'; choose one of squared, huber"):
            td_loss(self.errors, self.errors, "cubic")


class TestVisitWeights:
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_weighted_step_equals_the_mean_of_sequential_updates_over_all_orders(self, alpha):
        """Four visits of one entry and one of another, compared with the textbook's loop in each order."""
        entry = torch.tensor([0, 0, 1, 0, 0])
        target = torch.tensor([5.0, -1.0, 2.0, 4.0, 0.5], dtype=torch.float64)
        start = torch.tensor([1.0, 1.0], dtype=torch.float64)
        ends = []
        for order in permutations(range(5)):
            table = start.clone()
            for i in order:
                table[entry[i]] += alpha * (target[i] - table[entry[i]])
            ends.append(table)

        table = start.clone().requires_grad_()
        weights = visit_weights(entry, torch.full((5,), alpha, dtype=torch.float64))
        (weights * td_loss(table[entry], target)).sum().backward()
        torch.testing.assert_close(start - table.grad, torch.stack(ends).mean(0))

    def test_many_visits_do_not_overshoot(self):
        weights = visit_weights(torch.zeros(1000, dtype=torch.long), torch.full((1000,), 0.5))
        assert weights.sum().item() == pytest.approx(1)

    def test_each_entry_has_its_own_step_size(self):
        weights = visit_weights(torch.tensor([4, 2, 2]), torch.tensor([1.0, 0.5, 0.5]))
        assert weights.tolist() == [1.0, 0.375, 0.375]

    def test_empty_batch_has_no_weights(self):
        assert visit_weights(torch.zeros(0, dtype=torch.long), torch.zeros(0)).shape == (0,)
