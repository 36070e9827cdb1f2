from jaxtyping import Float
from torch import Tensor

from zoo.control.envs.mdp import FiniteMDP


def reward_and_discount(
    mdp: FiniteMDP,
) -> tuple[Float[Tensor, "states actions"], Float[Tensor, "states actions next_states"]]:
    """Return ``r(s, a) = Σ_s' P(s' | s, a) r(s, a, s')``, and ``γ P(s' | s, a)``, 0 where the step terminates."""
    return (mdp.transition * mdp.reward).sum(-1), mdp.gamma * mdp.transition * ~mdp.terminated


def backup(mdp: FiniteMDP, values: Float[Tensor, " states"]) -> Float[Tensor, "states actions"]:
    """Return the Bellman backup ``Q(s, a) = Σ_s' P(s' | s, a) (r + γ V(s'))``, without ``V(s')`` after termination."""
    reward, discount = reward_and_discount(mdp)
    return reward + discount @ values
