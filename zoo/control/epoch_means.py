from collections.abc import Mapping
from typing import Any


class PassMeans:
    """Means of metrics over the rollouts of a pass, and the latest values of others.

    Its state goes into checkpoints, so that a pass that is interrupted has the same means.

    Example:
        >>> means = PassMeans()
        >>> means.add({"loss": 1.0}, latest={"return": 5.0})
        >>> means.add({"loss": 3.0}, latest={"return": 7.0})
        >>> means.take(), means.take()
        ({'loss': 2.0, 'return': 7.0}, {})
    """

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.latest: dict[str, float] = {}

    def add(self, metrics: Mapping[str, Any], latest: Mapping[str, float]) -> None:
        """Add the metrics of a rollout, each a number or a tensor of one."""
        for name, value in metrics.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + float(value), count + 1]
        self.latest.update(latest)

    def take(self) -> dict[str, float]:
        """Return the means and the latest values, and begin anew."""
        found = {name: total / count for name, (total, count) in self.sums.items()} | self.latest
        self.sums, self.latest = {}, {}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what was added so far, as plain data."""
        return {"sums": {name: list(sums) for name, sums in self.sums.items()}, "latest": dict(self.latest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.sums = {name: list(sums) for name, sums in state["sums"].items()}
        self.latest = dict(state["latest"])
