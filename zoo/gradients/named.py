from collections.abc import Callable, Sequence

from torch import nn

from zoo.gradients.baselines import Baseline, Constant, Learned, LeaveOneOut, MovingAverage, Sum

BASELINES = (
    "none",
    "moving_average",
    "leave_one_out",
    "learned",
    "learned_leave_one_out",
    "learned_moving_average",
)


def named_baseline(
    name: str,
    *,
    net: Callable[[], nn.Module] | None = None,
    sample_dim: int = 0,
    decay: float = 0.9,
    also: Sequence[str] = (),
) -> Baseline:
    """Make a baseline from its name, as configurations give it.

    Args:
        name: one of ``none``, ``moving_average``, ``leave_one_out``, ``learned`` (a network's guess from the
            context), ``learned_leave_one_out`` (the former, and what it leaves over by leave-one-out),
            ``learned_moving_average`` (a moving average, and what it leaves over learned); or a number, for a constant.
        net: makes the network; see ``Learned``. Only those that learn need one.
        sample_dim: dimension of ``log_prob`` that holds independent samples of the same input.
        decay: weight of the past in a moving average.
        also: other names, which the caller knows what to do with; an error tells of them.

    Raises:
        ValueError: no baseline has that name, or it needs a network and there is none.

    Example:
        >>> named_baseline("leave_one_out", sample_dim=1)
        LeaveOneOut()
    """
    if net is None and name.startswith("learned") and name in BASELINES:
        raise ValueError(f"the baseline {name!r} needs a network: give Learned(net) in the place of its name")
    match name:
        case "none":
            return Baseline()
        case "moving_average":
            return MovingAverage(decay)
        case "leave_one_out":
            return LeaveOneOut(sample_dim)
        case "learned":
            return Learned(net())  # type: ignore[misc]
        case "learned_leave_one_out":
            return Sum(Learned(net()), LeaveOneOut(sample_dim))  # type: ignore[misc]
        case "learned_moving_average":
            return Sum(MovingAverage(decay), Learned(net()))  # type: ignore[misc]
    try:
        return Constant(float(name))
    except ValueError:
        known = ", ".join([*BASELINES, *also])
        raise ValueError(f"there is no baseline {name!r}; choose one of {known}, or a number") from None
