import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo._constraints import COUNT, NOT_NEGATIVE, POSITIVE, check_constraints, optional
from zoo.gradients.estimators import ESTIMATORS, GradientEstimate, bernoulli_sampler, complete_options
from zoo.inference.sbn.bounds import negative_elbo
from zoo.inference.sbn.network import BeliefNetwork, ConditionedNetwork, binary_pixels
from zoo.training import LoadableModule, sum_losses

_OPTIMIZERS = ("adam", "sgd")
CONSTRAINTS = {
    "num_particles": COUNT,
    "lr": POSITIVE,
    "inference_lr": optional(POSITIVE),
    "baseline_lr": optional(POSITIVE),
    "weight_decay": NOT_NEGATIVE,
}
_BASELINE_HIDDEN = 100  # hidden units of the input-dependent baseline
_DIAGNOSTICS_INTERVAL = 10  # training steps


class SigmoidBeliefNetwork(LoadableModule):
    """Sigmoid belief network of black-and-white images, trained by REINFORCE.

    Mnih & Gregor, "Neural variational inference and learning in belief networks", 2014. The networks are in
    ``BeliefNetwork``, the gradients in ``zoo.gradients.estimators``.

    Args:
        image_shape: ``(channels, height, width)`` of the images.
        layers: number of stochastic units per layer, lowest first; 200 or 500, up to three layers, in the paper.
        hidden: widths of deterministic layers between two stochastic layers; empty for the paper's linear network.
        activation: activation of the deterministic layers, ``tanh`` or ``leaky_relu``.
        num_particles: samples per image and training step, ``K``; 1 in the paper.
        local_signals: the learning signal of a layer has only the terms of the ELBO that depend on it. Not for
            estimators of the importance-weighted bound.
        optimizer: ``adam``, or the paper's ``sgd``.
        lr: initial learning rate, with cosine decay to 0.
        inference_lr: learning rate of the inference network; None for ``lr``. The paper's is a fifth of ``lr``.
        baseline_lr: learning rate of the baselines; None for that of the inference network. SGD needs a small one.
        weight_decay: weight decay of the inference network's matrices, decoupled with Adam. Without it, weights of
            pixels that are rarely white grow, and the bound of some held-out images becomes very poor.
        estimator: ``name`` of one of ``zoo.gradients.estimators.ESTIMATORS`` and its options: ``baseline`` of each
            layer (one of ``zoo.gradients.BASELINES``, by default ``leave_one_out``), ``decay`` and ``scale``.

    Example:
        >>> model = SigmoidBeliefNetwork(image_shape=(1, 28, 28))
        >>> model(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 1, 28, 28])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        layers: list[int] = [200],  # noqa: B006
        hidden: list[int] = [],  # noqa: B006
        activation: str = "tanh",
        num_particles: int = 4,
        local_signals: bool = True,
        optimizer: str = "adam",
        lr: float = 3e-3,
        inference_lr: float | None = None,
        baseline_lr: float | None = None,
        weight_decay: float = 0.05,
        estimator: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        estimator = complete_options(estimator, "sbn", default_baseline="leave_one_out")
        self.save_hyperparameters()
        check_constraints(self.hparams, CONSTRAINTS)
        if optimizer not in _OPTIMIZERS:
            raise ValueError(f"unknown optimizer {optimizer!r}; choose one of {', '.join(_OPTIMIZERS)}")
        self.network = BeliefNetwork(math.prod(image_shape), layers, hidden, activation)
        inputs = [math.prod(image_shape), *layers[:-1]]
        name, baseline = estimator["name"], estimator["baseline"]
        options_of_estimator = {key: value for key, value in estimator.items() if key != "name"}
        self.estimator = ESTIMATORS[name](
            layers, lambda layer: _baseline_net(inputs[layer]), local_signals=local_signals, **options_of_estimator
        )
        if (minimum := self.estimator.min_particles) > num_particles:
            option = f"estimator={name}" if baseline is None else f"estimator.baseline={baseline}"
            raise ValueError(f"{option} needs model.num_particles >= {minimum}, got {num_particles}")
        if not (local_signals or self.estimator.has_local_signals):
            raise ValueError(f"estimator={name} has no learning signals of single layers; remove model.local_signals")

    @torch.no_grad()
    def forward(
        self, images: Shaped[Tensor, "images channels height width"], seed: int = 0
    ) -> Float[Tensor, "images channels height width"]:
        """Return reconstructions: the probability of each pixel to be white given one posterior sample of the units.

        ``images`` are black and white; see ``binary_pixels``. Torch's random state is not used.
        """
        x = binary_pixels(images, self.hparams["image_shape"])
        generator = torch.Generator(x.device).manual_seed(seed)
        posterior = self.network.infer(x, bernoulli_sampler(self.network.noise(1, x, generator)))
        return self.network.pixel_probabilities(posterior.units[0][0]).unflatten(1, images.shape[1:])

    @torch.no_grad()
    def generate(self, num_samples: int, seed: int = 0) -> Float[Tensor, "samples channels height width"]:
        """Return the probability of each pixel to be white given units sampled from the prior."""
        like = self.network.mean.expand(num_samples, -1)
        noise = self.network.noise(1, like, torch.Generator(like.device).manual_seed(seed))
        lowest = self.network.ancestral_sample([layer[0] for layer in noise])
        return self.network.pixel_probabilities(lowest).unflatten(1, self.hparams["image_shape"])

    def objective(self, x: Float[Tensor, "batch pixels"]) -> GradientEstimate:
        """Return the losses of a batch."""
        estimate: GradientEstimate = self.estimator(ConditionedNetwork(self.network, x), self.hparams["num_particles"])
        return estimate

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, _ = batch
        objective = self.objective((images.flatten(1) > 0).to(self.dtype))
        if batch_idx % _DIAGNOSTICS_INTERVAL == 0:
            for name, metric in _diagnostics(objective).items():
                self.log(
                    name,
                    metric,
                    prog_bar=name == "train_negative_bound",
                    on_step=False,
                    on_epoch=True,
                    batch_size=len(images),
                    sync_dist=True,
                )
        terms = {"bound": objective.pathwise, "policy": objective.score, "baseline": objective.baseline}
        return sum_losses(terms, step=self.global_step)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the negative ELBO with one sample per image, with the same noise in each epoch."""
        images, _ = batch
        x = (images.flatten(1) > 0).to(self.dtype)
        bound = negative_elbo(self.network, x, num_samples=1, seed=batch_idx).value
        self.log("validation_negative_elbo", bound, batch_size=len(x), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its cosine schedule."""
        lr, inference_lr = self.hparams["lr"], self.hparams["inference_lr"]
        inference_lr = lr if inference_lr is None else inference_lr
        baseline_lr = self.hparams["baseline_lr"]
        baseline_lr = inference_lr if baseline_lr is None else baseline_lr
        matrices = [weight for weight in self.network.up.parameters() if weight.ndim == 2]
        biases = [weight for weight in self.network.up.parameters() if weight.ndim == 1]
        groups: list[dict[str, Any]] = [
            {"params": [*self.network.down.parameters(), self.network.prior_logits], "lr": lr, "weight_decay": 0.0},
            {"params": biases, "lr": inference_lr, "weight_decay": 0.0},
            {"params": matrices, "lr": inference_lr, "weight_decay": self.hparams["weight_decay"]},
            {"params": self.estimator.parameters(), "lr": baseline_lr, "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        if self.hparams["optimizer"] == "sgd":
            optimizer = torch.optim.SGD(groups, fused=True)
        else:
            optimizer = torch.optim.AdamW(groups, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _baseline_net(units: int) -> nn.Sequential:
    """Return the network of an input-dependent baseline."""
    return nn.Sequential(nn.Linear(units, _BASELINE_HIDDEN), nn.Tanh(), nn.Linear(_BASELINE_HIDDEN, 1))


def _diagnostics(objective: GradientEstimate) -> dict[str, Tensor]:
    """Return the bound, and the mean baseline and advantage variance of each layer."""
    metrics = {"train_negative_bound": -objective.bound.mean()}
    for layer, out in enumerate(objective.reinforce, 1):
        metrics[f"advantage_variance_{layer}"] = out.advantage.var(correction=0)
        metrics[f"baseline_mean_{layer}"] = out.baseline.mean()
    return metrics
