"""Comparison of models by their predictions of held-out labs: differences paired over patients, with intervals."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from examples.patients.labs import Labs
from examples.patients.prediction import Prediction
from zoo._stats import bootstrap_interval

RESAMPLES = 10_000
PAPER_ORDER = ("gamma_normal_ts", "gamma_normal", "gamma_gamma_ts", "gamma_gamma")
"""From the best predictive likelihood to the worst: table 1 of Ranganath, Gerrish & Blei, 2014."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def verdict(self) -> str:
        """Return whether a difference that is positive in the paper is confirmed, refuted or undecided."""
        return "confirmed" if self.low > 0 else "refuted" if self.high < 0 else "undecided"


def per_lab(prediction: Prediction) -> Interval:
    """Return the predictive log-likelihood per held-out lab, in nats, with its interval over patients.

    The percentile bootstrap resamples whole patients, since labs of one patient are correlated.

    Example:
        >>> print(per_lab(Prediction(torch.full((9,), -4.0), torch.full((9,), 2))))
        -2.000 (-2.000 to -2.000)
    """
    values = torch.stack([prediction.log_likelihood.double(), prediction.labs.double()], -1).numpy()
    low, high = bootstrap_interval(values, ratio, num_resamples=RESAMPLES)
    return Interval(float(ratio(values)), float(low), float(high))


def ratio(values: Float[np.ndarray, "*resamples patients 2"]) -> Float[np.ndarray, "*resamples"]:
    """Return the sum of the first column divided by that of the second."""
    log_likelihood, labs = np.moveaxis(values.sum(-2), -1, 0)
    return np.asarray(log_likelihood / labs)


def paired_difference(one: Prediction, other: Prediction) -> Interval:
    """Return the difference of the predictive log-likelihoods per held-out lab, paired over patients, in nats.

    Pairing removes the variance between patients that both models share.

    Raises:
        ValueError: the predictions are not of the same patients.

    Example:
        >>> hard, easy = torch.tensor([-9.0, -1.0]), torch.ones(2, dtype=torch.long)
        >>> print(paired_difference(Prediction(hard + 0.5, easy), Prediction(hard, easy)))
        0.500 (0.500 to 0.500)
    """
    if not torch.equal(one.labs, other.labs):
        raise ValueError("predictions can be paired only if they are of the same patients, with the same labs held out")
    return per_lab(Prediction(one.log_likelihood - other.log_likelihood, one.labs))


def num_patients_better(one: Prediction, other: Prediction) -> int:
    """Return the number of patients whose labs the first model predicts better, which is robust to outliers.

    Example:
        >>> labs = torch.ones(3)
        >>> one = Prediction(torch.tensor([-1.0, -1.0, -99.0]), labs)
        >>> num_patients_better(one, Prediction(torch.full((3,), -2.0), labs))
        2
    """
    return int((one.log_likelihood > other.log_likelihood).sum())


def mean_over_seeds(predictions: Sequence[Prediction]) -> Prediction:
    """Return the log-likelihood of each patient averaged over seeds."""
    return predictions[0]._replace(log_likelihood=torch.stack([each.log_likelihood for each in predictions]).mean(0))


def reference(train: Labs, held_out: Labs, logarithms: bool) -> Prediction:
    """Return the predictions of a normal (or log-normal) fitted to each lab of the training patients.

    The baseline that ignores the other labs of a patient.

    Raises:
        ValueError: a lab was observed less than twice in training.

    Example:
        >>> seen = torch.ones(2, 1, 1, dtype=torch.bool)
        >>> labs = Labs(torch.tensor([1.0, 3.0]).reshape(2, 1, 1), seen, seen.any(2))
        >>> reference(labs, labs, logarithms=False).per_lab
        tensor(-1.5155)
    """
    density = torch.zeros_like(held_out.values)
    for kind in range(train.values.shape[-1]):
        seen = train.values[..., kind][train.observed[..., kind]]
        if len(seen) < 2:
            raise ValueError("a lab needs to be observed twice in training to have a standard deviation")
        x = seen.log() if logarithms else seen
        family = torch.distributions.LogNormal if logarithms else torch.distributions.Normal
        density[..., kind] = family(x.mean(), x.std()).log_prob(held_out.values[..., kind])
    density = density.where(held_out.observed, 0.0)
    return Prediction(density.sum((-2, -1)), held_out.observed.sum((-2, -1)))


def differences(predictions: Mapping[str, Prediction]) -> dict[tuple[str, str], Interval]:
    """Return the differences of all pairs of models in the paper's order, which predicts positive ones."""
    pairs = combinations([name for name in PAPER_ORDER if name in predictions], 2)
    return {pair: paired_difference(*(predictions[name] for name in pair)) for pair in pairs}


def conclusion(found: Mapping[tuple[str, str], Interval]) -> str:
    """Return whether all pairs confirm the paper's ordering, or one refutes it.

    Example:
        >>> conclusion({("gamma_normal_ts", "gamma_normal"): Interval(0.1, -0.1, 0.3)})
        "the paper's ordering is undecided: of 1 pairs 0 confirm it and 0 refute it"
    """
    verdicts = [interval.verdict for interval in found.values()]
    confirming, refuting = verdicts.count("confirmed"), verdicts.count("refuted")
    overall = "refuted" if refuting else "confirmed" if confirming == len(verdicts) else "undecided"
    return (
        f"the paper's ordering is {overall}: of {len(verdicts)} pairs {confirming} confirm it and {refuting} refute it"
    )
