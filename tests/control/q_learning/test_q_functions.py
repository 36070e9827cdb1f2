import pytest
import torch

from zoo.control.q_learning.module import QLearning
from zoo.control.q_learning.q_functions import Dueling, QNetwork, QTable


class TestQTable:
    def test_table_starts_at_zero_and_returns_its_rows(self):
        table = QTable(num_states=3, num_actions=2)
        assert not table(torch.tensor([0, 2])).any()
        table.values.data[2] = torch.tensor([5.0, 6.0])
        assert table(torch.tensor([[2], [0]])).tolist() == [[[5, 6]], [[0, 0]]]

    def test_gradient_reaches_one_entry_only(self):
        table = QTable(num_states=3, num_actions=2)
        table(torch.tensor([1]))[0, 1].backward()
        assert table.values.grad.tolist() == [[0, 0], [0, 1], [0, 0]]


class TestDueling:
    def test_dueling_head_adds_the_value_to_centered_advantages(self):
        head = Dueling(in_features=4, num_actions=3)
        features = torch.randn(5, 4)
        values = head(features)
        torch.testing.assert_close(values.mean(-1, keepdim=True), head.value(features))
        advantage = head.advantage(features)
        torch.testing.assert_close(values[:, 0] - values[:, 1], advantage[:, 0] - advantage[:, 1])


class TestQNetwork:
    @pytest.mark.parametrize("dueling", [False, True])
    @pytest.mark.parametrize("shape", [(4,), (3, 10, 10), (5, 5), (30, 2), (4, 4, 16), ()], ids=str)
    def test_network_returns_a_value_per_action_that_depends_on_all_weights(self, shape, dueling):
        network = QNetwork(shape, num_actions=5, hidden=[16, 8], dueling=dueling)
        values = network(torch.rand(7, *shape))
        assert values.shape == (7, 5)
        values[:, 0].sum().backward()
        assert all(weight.grad.any() for weight in network.parameters())

    @pytest.mark.parametrize("shape", [(3,), (4, 4, 2)], ids=str)
    def test_network_scales_bytes(self, shape):
        network = QNetwork(shape, num_actions=2)
        observation = torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
        torch.testing.assert_close(network(observation), network(observation / 255))

    @pytest.mark.parametrize("hidden", [[], [0], [8, -1]])
    def test_network_without_hidden_units_raises(self, hidden):
        with pytest.raises(ValueError, match=r"at least one hidden layer, and at least 1 unit in each; got hidden=\["):
            QNetwork((4,), num_actions=2, hidden=hidden)


def test_q_learning_uses_a_table_for_states_and_a_network_for_a_shape():
    assert isinstance(QLearning(16, 4).policy.q, QTable)
    network = QLearning((4,), 2, lr=0.001, hidden=[8], dueling=True, visit_power=0.7).policy.q
    assert isinstance(network.layers[-1], Dueling)
