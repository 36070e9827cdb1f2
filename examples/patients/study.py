"""Fits of the four models to the same patients, and predictions of the held-out labs of others."""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from examples.patients.family import FactorFamily
from examples.patients.fitting import Fitting, fit
from examples.patients.guide import Guide, factors_of
from examples.patients.labs import LabSplit
from examples.patients.prediction import Prediction, predictive_log_likelihood
from zoo.inference._mean_field import sample_guide
from zoo.training import write_json

FAMILIES = {
    (family := FactorFamily(series, positive)).name: family for positive in (False, True) for series in (True, False)
}
DRAWS = 500
NUM_PARTS = 20  # averages of the ELBO in a record


def study(
    family: FactorFamily,
    split: LabSplit,
    training: Fitting,
    inference: Fitting,
    seed: int,
    watch: Callable[[int, float], bool] = lambda step, bound: False,
) -> dict[str, Any]:
    """Fit a model to the training patients, then the states of the test patients to their shown labs.

    The factors of weights and offsets are fixed in the second fit, as in the paper. A lab is predicted by its mean
    density over 500 samples of the guide.

    Args:
        family: factor model.
        split: training and test patients.
        training: settings of the first fit.
        inference: settings of the second fit.
        seed: seed of initialization and all samples.
        watch: see ``fit``; used in the first fit.

    Returns:
        The test patients' ``log_likelihood`` in nats and number of held-out ``labs``, the ``bounds`` of the two fits as
        means over twentieths of their steps, and the ``seconds`` they took.
    """
    began = perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guide = Guide(family, split.train)
        bounds = fit(family, guide, split.train, training, seed, watch)
        others = guide.for_patients(split.shown)
        shown_bounds = fit(family, others, split.shown, inference, seed)
    draws = factors_of(sample_guide(others, (split.shown,), DRAWS, seed))
    found = predictive_log_likelihood(family, split.held_out, draws)
    return {
        "log_likelihood": found.log_likelihood.tolist(),
        "labs": found.labs.tolist(),
        "per_lab": found.per_lab.item(),
        "bounds": average_in_parts(bounds),
        "shown_bounds": average_in_parts(shown_bounds),
        "seconds": round(perf_counter() - began, 1),
    }


def average_in_parts(values: list[float]) -> list[float]:
    """Return the averages over up to 20 consecutive parts of equal length.

    Example:
        >>> average_in_parts([float(x) for x in range(40)])[-1]
        38.5
    """
    size = max(len(values) // NUM_PARTS, 1)
    starts = range(0, size * min(NUM_PARTS, len(values)), size)
    parts = [values[start : start + size] for start in starts]
    return [round(sum(part) / len(part), 2) for part in parts]


def load_prediction(kept: Mapping[str, Any]) -> Prediction:
    """Return the prediction stored by ``study``."""
    return Prediction(torch.tensor(kept["log_likelihood"], dtype=torch.float64), torch.tensor(kept["labs"]))


def run_key(split: LabSplit, *settings: Any, **others: Any) -> dict[str, Any]:
    """Return a key of a run: checksum of the labs, settings (dataclasses), and other values."""
    content = b"".join(part.numpy().tobytes() for labs in split for part in labs[:3])
    return {"labs": zlib.crc32(content), "settings": [asdict(each) for each in settings], **others}


def cached(path: Path, wanted: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the contents of a file if it was made with the same key; else compute and store them.

    Raises:
        ValueError: the file is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "fit.json"
        ...     [cached(path, {"seed": seed}, lambda: {"found": seed})["found"] for seed in (1, 1, 2)]
        [1, 1, 2]
    """
    if path.is_file():
        try:
            kept: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error
        if isinstance(kept, dict) and kept.get("wanted") == wanted:
            return kept
    made = {"wanted": dict(wanted), **make()}
    write_json(path, made)
    return made
