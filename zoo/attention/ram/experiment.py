import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zoo.attention.ram._evaluation import class_probabilities, error_rates
from zoo.attention.ram.module import RecurrentAttention
from zoo.data import Batches, ImageData, ImageSet
from zoo.plotting import glimpse_summary, misclassified, save_figure, save_glimpse_gif
from zoo.training import Experiment, Loaders

logger = logging.getLogger(__name__)

VALIDATION_BATCH_SIZE = 1000
MAX_CLIPPED_LOCATIONS = 0.9  # fraction above which the policy counts as stuck at the border
MIN_COVERAGE = 0.05  # fraction of an image below which the glimpses are reported to cover too little of it
CONTROLS = {  # location policies with which trained weights are evaluated too
    "spiral": "at the fixed locations of the spiral",
    "random": "at random locations",
    "center": "at the center",
}
NUM_IMAGES_SHOWN = 6


class RecurrentAttentionExperiment(Experiment):
    """Training of ``RecurrentAttention`` to classify images, and its final evaluation.

    Args:
        data: training, validation and test images.
        estimator: options of ``Reinforce``; see ``RecurrentAttention``.
        batch_size: training images per step, on each device.
        seed: seed of the order of the training images.
        options: options of ``RecurrentAttention``.

    Example:
        >>> from zoo.data import load_mnist_5k
        >>> RecurrentAttentionExperiment(load_mnist_5k(), {"baseline": "learned"}, batch_size=100, seed=1).name
        'mnist-5k'
    """

    monitor, monitor_mode = "validation_error", "min"

    def __init__(self, data: ImageData, estimator: Mapping[str, Any], batch_size: int, seed: int, **options: Any):
        self.data, self.name = data, data.name
        self.module = RecurrentAttention(
            image_shape=data.image_shape,
            classes=data.classes,
            fill_value=data.fill_value,
            estimator=estimator,
            **options,
        )
        _warn_if_coverage_is_small(self.module)
        validation = data.validation
        self.loaders = Loaders(
            train=lambda rank, ranks: Batches(data.train, batch_size, seed, rank, ranks),
            validation=None
            if validation is None
            else lambda rank, ranks: Batches(validation, VALIDATION_BATCH_SIZE, None, rank, ranks),
        )

    def callbacks(self) -> list[pl.Callback]:
        """Return the callbacks that only this model needs."""
        return [_LocationPolicyMonitor()]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return the test error rates of a checkpoint, and save images of its glimpses."""
        model, test = RecurrentAttention.load(checkpoint), self.data.load_test()
        _draw_glimpses(model, test, self.data.classes, folder)
        return error_rates(model, test)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return the metrics of ``report`` and error rates at other locations; save the misclassified images, too."""
        model, test = RecurrentAttention.load(checkpoint), self.data.load_test()
        _draw_glimpses(model, test, self.data.classes, folder)
        _draw_misclassified(model, test, self.data.classes, folder)
        controls = {policy: error_rates(model, test, location_policy=policy) for policy in CONTROLS}
        return error_rates(model, test) | {
            f"test_error_{policy}_locations": rates["test_error"] for policy, rates in controls.items()
        }

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary of the test metrics in sentences."""
        low, high, error = (_percent(metrics[f"test_error{bound}"]) for bound in ("_low", "_high", ""))
        lines = [
            f"test error on {self.data.name}: {error}  (one trajectory, mean policy; 95 % interval {low} to {high})",
            f"  {_percent(metrics['test_error_mc10'])} with the class probabilities of ten trajectories averaged",
        ]
        for policy, where in CONTROLS.items():
            if (elsewhere := metrics.get(f"test_error_{policy}_locations")) is not None:
                lines.append(f"  {_percent(elsewhere)} with all glimpses of the same model {where}")
        return "\n".join(lines)


def _percent(error: float) -> str:
    return f"{100 * error:.2f} %"


def _warn_if_coverage_is_small(model: RecurrentAttention) -> None:
    """Warn if all glimpses together cover too little of an image."""
    sensor, num_glimpses = model.network.sensor, model.hparams["num_glimpses"]
    _, height, width = sensor.image_shape
    side = max(sensor.patch_sizes)
    coverage = num_glimpses * side**2 / (height * width)
    if coverage < MIN_COVERAGE:
        logger.warning(
            f"{num_glimpses} glimpses of at most {side}×{side} pixels cover {_percent(coverage)} of a {height}×{width} "
            "image. Remove model.patch_size and model.num_scales to use defaults that suit the image size, or load "
            "smaller images with data.size=[HEIGHT,WIDTH]."
        )


def _draw_glimpses(model: RecurrentAttention, test: ImageSet, classes: tuple[str, ...], folder: Path) -> None:
    """Save the glimpses at one image of each of the first classes, as ``glimpses.png`` and ``glimpses.gif``."""
    first_of_each = [int((test.labels == label).nonzero()[0]) for label in test.labels.unique()]
    images, labels = test[torch.tensor(first_of_each[:NUM_IMAGES_SHOWN])]
    prediction = model(images)
    arrays = {
        "images": images / 255,
        "centers": prediction.fixations.transpose(0, 1),
        "patch_sizes": model.network.sensor.patch_sizes,
        "probabilities": prediction.probabilities.transpose(0, 1),
        "labels": labels,
        "classes": classes,
    }
    save_figure(glimpse_summary(**arrays), folder / "glimpses.png")
    save_glimpse_gif(folder / "glimpses.gif", **arrays)


def _draw_misclassified(model: RecurrentAttention, test: ImageSet, classes: tuple[str, ...], folder: Path) -> None:
    """Save the test images that one trajectory misclassified, as ``misclassified.png``."""
    probabilities = class_probabilities(model, test.images, seed=0)
    predicted = probabilities.argmax(-1)
    wrong = (predicted != test.labels).nonzero().squeeze(1)
    images, labels = test[wrong]
    figure = misclassified(images / 255, labels, predicted[wrong], probabilities[wrong], classes, total=len(test))
    save_figure(figure, folder / "misclassified.png")


class _LocationPolicyMonitor(pl.Callback):
    """Warns if the location policy is not learning, once for each reason."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the epoch's mean training metrics."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if metrics.get("reward_variance") == 0 and metrics["train_error"] > 0:
            self._warn_once(
                "no reward",
                "No prediction of an epoch was correct, so the location policy received no gradient. Check that the "
                "labels match the images, or lower model.lr.",
            )
        if metrics.get("clipped_locations", 0.0) > MAX_CLIPPED_LOCATIONS:
            self._warn_once(
                "clipped",
                f"{metrics['clipped_locations']:.0%} of the sampled locations lie outside [-1, 1] and are clipped: the "
                "location policy is stuck at the border. Lower model.policy_weight or model.location_std, or raise "
                "model.location_range.",
            )

    def _warn_once(self, reason: str, warning: str) -> None:
        if reason not in self._reported:
            self._reported.add(reason)
            logger.warning(warning)
