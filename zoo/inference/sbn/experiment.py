from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.data import Batches, BinarizedBatches, ImageData, binarize_set, is_binary
from zoo.inference.sbn.bounds import negative_elbo, negative_iwae_bound
from zoo.inference.sbn.module import SigmoidBeliefNetwork
from zoo.inference.sbn.network import binary_pixels
from zoo.plotting import image_grid, save_figure
from zoo.training import Experiment, Loaders

_EVAL_BATCH_SIZE = 1000
_ELBO_SAMPLES = 10  # as in the tables of Mnih & Gregor, 2014
_BOUND_SAMPLES = 100
_EVALUATE_BOUND_SAMPLES = 1000  # an evaluation may take longer
_NUM_IMAGES = 32  # in each grid of the figure


class BeliefNetworkExperiment(Experiment):
    """Training and evaluation of a sigmoid belief network.

    Grayscale images are binarized dynamically: training pixels are sampled anew in each epoch, validation and test
    pixels once. Black-and-white images are not changed ("static binarization"). Bounds on the two are not comparable.

    Args:
        data: training, validation and test images.
        estimator: options of ``Reinforce``; see ``SigmoidBeliefNetwork``.
        batch_size: training images per step, on each device.
        seed: seed of the order of the training images and of their pixels.
        options: keyword arguments passed to ``SigmoidBeliefNetwork``.

    Example:
        >>> from zoo.data import load_mnist_5k
        >>> estimator = {"name": "reinforce", "baseline": "moving_average"}
        >>> BeliefNetworkExperiment(load_mnist_5k(), estimator, batch_size=64, seed=1, layers=[10]).name
        'mnist-5k, dynamic binarization'
    """

    monitor, monitor_mode = "validation_negative_elbo", "min"

    def __init__(self, data: ImageData, estimator: Mapping[str, Any], batch_size: int, seed: int, **options: Any):
        static = is_binary(data.train.images)
        self.data = data
        self.binarization = "static" if static else "dynamic"
        self.name = data.name if static else f"{data.name}, dynamic binarization"
        self.module = SigmoidBeliefNetwork(image_shape=data.image_shape, estimator=estimator, **options)
        self.module.network.initialize_bias(data.train.images.flatten(1).float().mean(0) / 255)
        batches = Batches if static else BinarizedBatches
        self.held_out = held_out = None if data.validation is None else binarize_set(data.validation)
        self.loaders = Loaders(
            train=lambda rank, ranks: batches(data.train, batch_size, seed, rank, ranks),
            validation=None
            if held_out is None
            else lambda rank, ranks: Batches(held_out, _EVAL_BATCH_SIZE, None, rank, ranks),
        )

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return both bounds of the test set, in nats with their standard errors, and save samples of the model."""
        return self._report(checkpoint, folder, _BOUND_SAMPLES)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return the metrics of ``report``, and the importance-weighted bound with more samples."""
        return self._report(checkpoint, folder, _BOUND_SAMPLES, _EVALUATE_BOUND_SAMPLES)

    def _report(self, checkpoint: Path, folder: Path, *bound_samples: int) -> dict[str, float]:
        model, test = SigmoidBeliefNetwork.load(checkpoint), binarize_set(self.data.load_test()).images
        x = binary_pixels(test, self.data.image_shape)
        bounds = {"test_negative_elbo": negative_elbo(model.network, x, _ELBO_SAMPLES)}
        if self.held_out is not None:
            held_out = binary_pixels(self.held_out.images, self.data.image_shape)
            bounds["validation_negative_elbo"] = negative_elbo(model.network, held_out, _ELBO_SAMPLES)
        for num_samples in bound_samples:
            bounds[f"test_negative_bound_{num_samples}"] = negative_iwae_bound(model.network, x, num_samples)
        _save_images(model, test[:: -(-len(test) // _NUM_IMAGES)], folder)
        metrics: dict[str, float] = {}
        for name, bound in bounds.items():
            metrics |= {name: bound.value, f"{name}_std_error": bound.standard_error}
        return metrics

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary of the bounds."""

        def nats(name: str) -> str:
            return f"{metrics[name]:.2f} ± {metrics[f'{name}_std_error']:.2f} nats"

        lines = [
            f"test images: {self.data.name}, {self.binarization} binarization (± standard error over images)",
            f"  negative ELBO: {nats('test_negative_elbo')}  (mean over {_ELBO_SAMPLES} samples)",
        ]
        lines += [
            f"  negative importance-weighted bound: {nats(name)}  (S = {num_samples} samples)"
            for num_samples in (_BOUND_SAMPLES, _EVALUATE_BOUND_SAMPLES)
            if (name := f"test_negative_bound_{num_samples}") in metrics
        ]
        return "\n".join(lines)


def _save_images(model: SigmoidBeliefNetwork, test: Tensor, folder: Path) -> None:
    """Save samples of the model, test images and their reconstructions as ``samples.png``."""
    grids = {
        "samples: probability of each pixel given units sampled from the prior": model.generate(len(test)),
        "test images": test / 255,
        "reconstructions: probability of each pixel given units sampled from the inference network": model(test),
    }
    save_figure(image_grid({heading: images.cpu() for heading, images in grids.items()}), folder / "samples.png")
