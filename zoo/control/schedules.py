from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A number that goes from one value to another, and stays there.

    Args:
        start: value at step 0.
        end: value from ``steps`` on.
        steps: how long the way takes; 0 to be at the end at once.
        shape: ``linear``, equal differences in equal times, or ``geometric``, equal ratios.

    Raises:
        ValueError: there is no such shape, ``steps`` is negative, or a geometric end is not positive.

    Example:
        >>> [Schedule(1.0, 0.1, steps=100)(step) for step in (0, 50, 1000)]
        [1.0, 0.55, 0.1]
    """

    start: float
    end: float
    steps: int
    shape: str = "linear"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "geometric"):
            raise ValueError(f"there is no schedule {self.shape!r}; choose linear or geometric")
        if self.steps < 0:
            raise ValueError(f"a schedule takes 0 or more steps, got {self.steps}")
        if self.shape == "geometric" and not (self.start > 0 and self.end > 0):
            raise ValueError(f"a geometric schedule goes between positive numbers, got {self.start} and {self.end}")

    def __call__(self, step: int) -> float:
        """Give the value at a step."""
        if step >= self.steps:
            return self.end
        progress = step / self.steps
        if self.shape == "linear":
            return self.start + (self.end - self.start) * progress
        return self.start * (self.end / self.start) ** progress
