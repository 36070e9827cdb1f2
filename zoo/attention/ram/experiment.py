import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zoo.attention.ram.callbacks import LearningCheck
from zoo.attention.ram.evaluation import class_probabilities, mean_policy_error
from zoo.attention.ram.module import RecurrentAttention
from zoo.data import Batches, ImageData, ImageSet
from zoo.plotting import glimpse_paths, mistakes, save_figure, save_glimpse_gif
from zoo.training import Loaders

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 1000
LITTLE = 0.05  # fraction of an image below which the glimpses are said to see too little of it
CONTROLS = {
    "spiral": "the resting places of its gaze",
    "random": "random glimpses",
    "centre": "every glimpse at the centre",
}
SHOWN = 6  # pictures whose glimpse paths are drawn


class RecognitionExperiment:
    """Training a model to recognise pictures through glimpses, and what is reported at its end.

    Args:
        data: pictures to learn from and to be judged by.
        estimator: options of ``Reinforce``; see ``RecurrentAttention``.
        batch_size: training pictures a step, on each device.
        seed: of the order of the training pictures.
        options: of ``RecurrentAttention``.
    """

    monitor, monitor_mode = "validation_error", "min"

    def __init__(self, data: ImageData, estimator: Mapping[str, Any], batch_size: int, seed: int, **options: Any):
        self.data, self.name = data, data.name
        self.module = RecurrentAttention(
            image_shape=data.image_shape,
            classes=data.classes,
            background=data.background,
            estimator=estimator,
            **options,
        )
        warn_of_small_glimpses(self.module)
        held_out = data.validation
        self.loaders = Loaders(
            train=lambda rank, ranks: Batches(data.train, batch_size, seed, rank, ranks),
            validation=None
            if held_out is None
            else lambda rank, ranks: Batches(held_out, EVALUATION_BATCH, None, rank, ranks),
        )

    def callbacks(self) -> list[pl.Callback]:
        """Callbacks of this kind of model alone."""
        return [LearningCheck()]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Read the test set, measure the model on it, and draw what it sees.

        Returns:
            Figures by plain names; errors are fractions.
        """
        return self._report(RecurrentAttention.load(checkpoint), self.data.load_test(), folder)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Report, add the same weights' error when they look elsewhere, and draw the mistakes."""
        model, test = RecurrentAttention.load(checkpoint), self.data.load_test()
        figures = self._report(model, test, folder)
        for gaze in CONTROLS:
            figures[f"test_error_{gaze}_gaze"] = mean_policy_error(model, test.images, test.labels, gaze=gaze).single
        draw_mistakes(model, test, self.data.classes, folder)
        return figures

    def _report(self, model: RecurrentAttention, test: ImageSet, folder: Path) -> dict[str, float]:
        error = mean_policy_error(model, test.images, test.labels)
        draw_glimpses(model, test, self.data.classes, folder)
        return {
            "test_error": error.single,
            "test_error_spread": error.spread,
            "test_error_low": error.interval[0],
            "test_error_high": error.interval[1],
            "test_error_mc10": error.averaged,
        }

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what was reached, and on which data."""
        single, averaged = figures["test_error"], figures["test_error_mc10"]
        low, high = figures["test_error_low"], figures["test_error_high"]
        lines = [
            f"test error on {self.data.name}: {single:.2%}  "
            f"(one walk, mean policy; 95 % interval {low:.2%} to {high:.2%})",
            f"  {averaged:.2%} with the class probabilities of ten walks averaged",
        ]
        for gaze, words in CONTROLS.items():
            if f"test_error_{gaze}_gaze" in figures:
                lines.append(f"  {figures[f'test_error_{gaze}_gaze']:.2%} if the same model is given {words}")
        return "\n".join(lines)


def warn_of_small_glimpses(model: RecurrentAttention) -> None:
    """Warn if all glimpses together cover next to nothing of an image, so that the class is a guess."""
    sensor, glimpses = model.network.sensor, model.hparams["glimpses"]
    _, height, width = sensor.image_shape
    covered = glimpses * max(sensor.sides) ** 2 / (height * width)
    if covered < LITTLE:
        logger.warning(
            f"{glimpses} glimpses of at most {max(sensor.sides)}×{max(sensor.sides)} pixels see {covered:.2%} of a "
            f"{height}×{width} image. Leave model.glimpse_size and model.scales away for ones that suit it, "
            "or load smaller images with data.size=[HEIGHT,WIDTH]."
        )


def draw_glimpses(model: RecurrentAttention, test: ImageSet, classes: tuple[str, ...], folder: Path) -> None:
    """Draw the walk over a few pictures, of as many classes, as ``glimpses.png`` and ``glimpses.gif``."""
    first_of_each = [int((test.labels == label).nonzero()[0]) for label in test.labels.unique()]
    chosen = torch.tensor(first_of_each[:SHOWN])
    images, labels = test[chosen]
    seen = model(images)
    arrays = {
        "images": images / 255,
        "centres": seen.path.transpose(0, 1),
        "sides": model.network.sensor.sides,
        "probabilities": seen.probabilities.transpose(0, 1),
        "labels": labels,
        "classes": classes,
    }
    save_figure(glimpse_paths(**arrays), folder / "glimpses.png")
    save_glimpse_gif(folder / "glimpses.gif", **arrays)


def draw_mistakes(model: RecurrentAttention, test: ImageSet, classes: tuple[str, ...], folder: Path) -> None:
    """Draw the test pictures that one walk got wrong, as ``mistakes.png``."""
    probabilities = class_probabilities(model, test.images, seed=0)
    predicted = probabilities.argmax(-1)
    wrong = (predicted != test.labels).nonzero().squeeze(1)
    figure = mistakes(
        test.images[wrong] / 255,
        test.labels[wrong],
        predicted[wrong],
        probabilities[wrong],
        classes,
        total=len(test),
    )
    save_figure(figure, folder / "mistakes.png")
