from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients import Baseline, ConstantBaseline, LearnedBaseline, MovingAverageBaseline, Reinforce


class ValueFunction(nn.Module):
    """State value ``V(s)`` that a baseline predicts: the output of its network, plus constants or moving averages."""

    def __init__(self, learned: LearnedBaseline, offsets: Sequence[Baseline] = ()):
        super().__init__()
        self.net, self.offsets = learned.net, offsets

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch"]:
        """Return the expected return of each state."""
        value: Tensor = self.net(observation).squeeze(-1)
        for offset in self.offsets:
            value = value + offset.predict(value, None, None)
        return value


def value_function(reinforce: Reinforce) -> ValueFunction | None:
    """Return the value function that an estimator's baseline learns; None if it learns none."""
    parts = list(reinforce.modules())
    learned = next((part for part in parts if isinstance(part, LearnedBaseline)), None)
    if learned is None:
        return None
    return ValueFunction(
        learned, [part for part in parts if isinstance(part, ConstantBaseline | MovingAverageBaseline)]
    )
