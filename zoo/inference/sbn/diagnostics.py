from torch import Tensor

from zoo.inference.sbn.objective import BoundObjective


def diagnostics(objective: BoundObjective) -> dict[str, Tensor]:
    """Figures that tell how noisy the learning signals are, layer by layer."""
    figures = {"train_negative_bound": -objective.bound.mean()}
    for layer, out in enumerate(objective.reinforce, 1):
        figures[f"advantage_variance_{layer}"] = out.advantage.var(correction=0)
        figures[f"baseline_mean_{layer}"] = out.baseline.mean()
    return figures
