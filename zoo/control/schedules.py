from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Schedule from an initial to a final value, constant afterwards.

    Its ``shape`` is ``linear`` for equal differences, ``geometric`` for equal ratios.

    Raises:
        ValueError: ``shape`` is unknown, ``steps`` is negative, or a geometric schedule has a value that is not
            positive.

    Example:
        >>> [Schedule(1.0, 0.1, steps=100)(step) for step in (0, 50, 1000)]
        [1.0, 0.55, 0.1]
    """

    initial: float
    final: float
    steps: int
    shape: str = "linear"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "geometric"):
            raise ValueError(f"there is no schedule {self.shape!r}; choose linear or geometric")
        if self.steps < 0:
            raise ValueError(f"the steps of a schedule must be 0 or more, got {self.steps}")
        if self.shape == "geometric" and not (self.initial > 0 and self.final > 0):
            raise ValueError(f"a geometric schedule needs positive values, got {self.initial} and {self.final}")

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        if step >= self.steps:
            return self.final
        progress = step / self.steps
        if self.shape == "linear":
            return self.initial + (self.final - self.initial) * progress
        return self.initial * (self.final / self.initial) ** progress
