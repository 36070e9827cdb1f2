from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.data import Batches, BinarizedBatches, ImageData, binarized, is_binary
from zoo.inference.sbn.bounds import negative_elbo, negative_importance_weighted_bound
from zoo.inference.sbn.module import SigmoidBeliefNetwork
from zoo.inference.sbn.pixels import binary_pixels
from zoo.plotting import image_grid, save_figure
from zoo.training import Experiment, Loaders

EVALUATION_BATCH = 1000
ELBO_SAMPLES = 10  # as in the tables of Mnih & Gregor, 2014
BOUND_SAMPLES = 100
CLOSER_SAMPLES = 1000  # of an evaluation, which may take longer
SHOWN = 32  # pictures of each kind that are drawn


class BeliefNetworkExperiment(Experiment):
    """Training a sigmoid belief network on pictures, and what is reported at its end.

    Grey pictures are binarised dynamically: a training picture's pixels are drawn each time it is given, those of
    validation and test pictures once. Pictures that are black and white already stay what they are, and their
    binarisation is called static. Figures on the two are not comparable.

    Args:
        data: pictures to learn from and to be judged by.
        estimator: options of ``Reinforce``; see ``SigmoidBeliefNetwork``.
        batch_size: training pictures a step, on each device.
        seed: of the order of the training pictures and of their pixels.
        options: of ``SigmoidBeliefNetwork``.
    """

    monitor, monitor_mode = "validation_negative_elbo", "min"

    def __init__(self, data: ImageData, estimator: Mapping[str, Any], batch_size: int, seed: int, **options: Any):
        static = is_binary(data.train.images)
        self.data = data
        self.binarization = "static" if static else "dynamic"
        self.name = data.name if static else f"{data.name}, dynamic binarisation"
        self.module = SigmoidBeliefNetwork(image_shape=data.image_shape, estimator=estimator, **options)
        self.module.network.begin_at(data.train.images.flatten(1).float().mean(0) / 255)
        batches = Batches if static else BinarizedBatches
        self.held_out = held_out = None if data.validation is None else binarized(data.validation)
        self.loaders = Loaders(
            train=lambda rank, ranks: batches(data.train, batch_size, seed, rank, ranks),
            validation=None
            if held_out is None
            else lambda rank, ranks: Batches(held_out, EVALUATION_BATCH, None, rank, ranks),
        )

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Read the test set, measure both bounds on it, and draw what the model dreams.

        Returns:
            Figures by plain names, in nats.
        """
        return self._report(checkpoint, folder, BOUND_SAMPLES)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Report, and measure the importance-weighted bound with more samples too."""
        return self._report(checkpoint, folder, BOUND_SAMPLES, CLOSER_SAMPLES)

    def _report(self, checkpoint: Path, folder: Path, *sample_counts: int) -> dict[str, float]:
        model, test = SigmoidBeliefNetwork.load(checkpoint), binarized(self.data.load_test()).images
        x = binary_pixels(test, self.data.image_shape)
        bounds = {"test_negative_elbo": negative_elbo(model.network, x, ELBO_SAMPLES)}
        if self.held_out is not None:
            held_out = binary_pixels(self.held_out.images, self.data.image_shape)
            bounds["validation_negative_elbo"] = negative_elbo(model.network, held_out, ELBO_SAMPLES)
        for samples in sample_counts:
            bounds[f"test_negative_bound_{samples}"] = negative_importance_weighted_bound(model.network, x, samples)
        draw_pictures(model, test[:: -(-len(test) // SHOWN)], folder)
        figures: dict[str, float] = {}
        for name, bound in bounds.items():
            figures |= {name: bound.value, f"{name}_spread": bound.standard_error}
        return figures

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what was reached, and on which data."""

        def nats(name: str) -> str:
            return f"{figures[name]:.2f} ± {figures[f'{name}_spread']:.2f} nats"

        lines = [
            f"test pictures: {self.data.name}, {self.binarization} binarisation (± standard error over pictures)",
            f"  negative ELBO: {nats('test_negative_elbo')}  (mean over {ELBO_SAMPLES} samples)",
        ]
        lines += [
            f"  negative importance-weighted bound: {nats(name)}  (S = {samples} samples)"
            for samples in (BOUND_SAMPLES, CLOSER_SAMPLES)
            if (name := f"test_negative_bound_{samples}") in figures
        ]
        return "\n".join(lines)


def draw_pictures(model: SigmoidBeliefNetwork, test: Tensor, folder: Path) -> None:
    """Draw pictures from the prior, and test pictures with their reconstructions, as ``pictures.png``."""
    groups = {
        "dreams: probability of each pixel, given units drawn from the prior": model.generate(len(test)),
        "test pictures": test / 255,
        "their reconstructions: the same, given units drawn by the inference network": model(test),
    }
    save_figure(image_grid({heading: images.cpu() for heading, images in groups.items()}), folder / "pictures.png")
