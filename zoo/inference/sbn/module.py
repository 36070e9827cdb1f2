import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo.constraints import COUNT, NOT_NEGATIVE, POSITIVE, check_constraints, optional
from zoo.gradients import Reinforce, RunningScale, named_baseline
from zoo.gradients.estimators import LeaveOneOutBound
from zoo.inference.sbn.bounds import negative_elbo
from zoo.inference.sbn.diagnostics import diagnostics
from zoo.inference.sbn.enumeration import MOST_BITS, exact_elbo
from zoo.inference.sbn.network import BeliefNetwork, threshold
from zoo.inference.sbn.objective import BoundObjective, elbo_objective, multi_sample_objective
from zoo.inference.sbn.pixels import binary_pixels
from zoo.training import LoadableModule, sum_losses

OPTIMIZERS = ("adam", "sgd")
COMPARING = ("leave_one_out", "learned_leave_one_out", "vimco")  # estimators that need 2 particles
WITHOUT_LAYERS = ("vimco", "enumeration")  # that take the bound as a whole
CONSTRAINTS = {
    "particles": COUNT,
    "lr": POSITIVE,
    "inference_lr": optional(POSITIVE),
    "baseline_lr": optional(POSITIVE),
    "weight_decay": NOT_NEGATIVE,
}
BASELINE_UNITS = 100  # of the hidden layer of the input-dependent baseline
DIAGNOSE_EVERY = 10  # training steps; the diagnostics are means over these


class SigmoidBeliefNetwork(LoadableModule):
    """Sigmoid belief network on black and white pictures, trained by REINFORCE.

    Mnih & Gregor, "Neural variational inference and learning in belief networks", 2014. The networks are in
    ``BeliefNetwork``, the gradients in ``elbo_objective`` and ``multi_sample_objective``.

    Args:
        image_shape: ``(channels, height, width)`` of the pictures.
        layers: stochastic units of each layer, the lowest first; the paper: 200 and 500, up to three layers.
        hidden: widths of deterministic layers between two stochastic ones; none for the paper's linear network.
        activation: of the deterministic layers, ``tanh`` or ``leaky_relu``.
        particles: samples of each picture's units a step, ``K``; the paper: 1.
        local_signals: give each layer the terms of the ELBO that it influences, not all of them. The multi-sample
            bound has no such terms.
        optimizer: ``adam``, or the paper's ``sgd``.
        lr: learning rate at the start; falls to 0 as a cosine.
        inference_lr: that of the inference network; None for the same. The paper's is a fifth of it.
        baseline_lr: that of the baselines; None for that of the inference network. Gradient descent needs a small one.
        weight_decay: of the inference network's matrices, decoupled from the gradient's size if the optimizer is Adam.
            Without it their weights grow large at pixels that are seldom white, and a few new pictures cost dearly.
        estimator: ``baseline``, ``decay`` and ``scale`` of ``Reinforce``, for each layer. Beside the names of
            ``zoo.gradients.BASELINES``, ``vimco`` (the multi-sample bound instead of the ELBO) and ``enumeration`` (the
            exact gradient; up to 12 units in all).

    Raises:
        ValueError: an option has no such value.

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
        particles: int = 4,
        local_signals: bool = True,
        optimizer: str = "adam",
        lr: float = 3e-3,
        inference_lr: float | None = None,
        baseline_lr: float | None = None,
        weight_decay: float = 0.05,
        estimator: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        estimator = {"baseline": "leave_one_out", **(estimator or {})}
        self.save_hyperparameters()
        check_constraints(self.hparams, CONSTRAINTS)
        name = estimator["baseline"]
        if (fewest := 2 if name in COMPARING else 1) > particles:
            raise ValueError(f"estimator={name} needs model.particles of {fewest} or more, got {particles}")
        if name == "enumeration" and sum(layers) > MOST_BITS:
            raise ValueError(f"estimator=enumeration goes through at most {MOST_BITS} units, got {sum(layers)}")
        if name in WITHOUT_LAYERS and not local_signals:
            raise ValueError(f"estimator={name} has no signals of single layers; leave model.local_signals away")
        if name == "enumeration" and estimator.get("scale", False):
            raise ValueError("estimator=enumeration is exact, and has no signals to scale; leave estimator.scale away")
        if name == "vimco" and estimator.get("scale", False):
            raise ValueError(
                "estimator=vimco cannot be scaled, as the inference network has a pathwise gradient beside its score, "
                "and scaling one of them would move the optimum; leave estimator.scale away"
            )
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"there is no optimizer {optimizer!r}; choose one of {', '.join(OPTIMIZERS)}")
        self.network = BeliefNetwork(math.prod(image_shape), layers, hidden, activation)
        inputs = [math.prod(image_shape), *layers[:-1]]
        self.reinforce = nn.ModuleList(layer_estimators(inputs, **estimator))

    @torch.no_grad()
    def forward(
        self, images: Shaped[Tensor, "images channels height width"], seed: int = 0
    ) -> Float[Tensor, "images channels height width"]:
        """Reconstruct pictures: the probability of each pixel to be white, given one sample of the units.

        Args:
            images: black and white; 0 and 255 as uint8, or 0 and 1 as floats.
            seed: of the sample.

        Raises:
            ValueError: pictures of another shape, an empty batch, or pixels that are neither black nor white.
        """
        x = binary_pixels(images, self.hparams["image_shape"])
        generator = torch.Generator(x.device).manual_seed(seed)  # leaves the training's randomness alone
        posterior = self.network.infer(x, threshold(self.network.noise(1, x, generator)))
        return self.network.pixel_probabilities(posterior.units[0][0]).unflatten(1, images.shape[1:])

    @torch.no_grad()
    def generate(self, count: int, seed: int = 0) -> Float[Tensor, "count channels height width"]:
        """Dream up pictures: the probability of each pixel to be white, given units drawn from the prior."""
        like = self.network.mean.expand(count, -1)
        noise = self.network.noise(1, like, torch.Generator(like.device).manual_seed(seed))
        lowest = self.network.ancestral([layer[0] for layer in noise])
        return self.network.pixel_probabilities(lowest).unflatten(1, self.hparams["image_shape"])

    def objective(self, x: Float[Tensor, "batch pixels"]) -> BoundObjective:
        """Draw the units of a batch, and judge them."""
        name = (self.hparams["estimator"] or {}).get("baseline", "leave_one_out")
        if name == "enumeration":
            bound, nothing = exact_elbo(self.network, x), x.new_zeros(())
            return BoundObjective(-bound.mean(), nothing, nothing, bound.detach(), [])
        posterior = self.network.infer(x, threshold(self.network.noise(self.hparams["particles"], x)))
        log_joint = self.network.log_joint(x, posterior.units)
        if name == "vimco":
            return multi_sample_objective(posterior, log_joint, self.reinforce[0])
        return elbo_objective(posterior, log_joint, self.reinforce, self.hparams["local_signals"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Sum the losses of one batch."""
        images, _ = batch
        objective = self.objective((images.flatten(1) > 0).to(self.dtype))
        if batch_idx % DIAGNOSE_EVERY == 0:
            figures = diagnostics(objective)
            each_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
            shown = figures.pop("train_negative_bound")
            self.log("train_negative_bound", shown, prog_bar=True, sync_dist=True, **each_epoch)
            self.log_dict(figures, sync_dist=True, **each_epoch)
        terms = {"bound": objective.pathwise, "policy": objective.score, "baseline": objective.baseline}
        return sum_losses(terms, step=self.global_step)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the negative ELBO with one sample for each picture, the same noise every time."""
        images, _ = batch
        x = (images.flatten(1) > 0).to(self.dtype)
        bound = negative_elbo(self.network, x, samples=1, seed=batch_idx).value
        self.log("validation_negative_elbo", bound, batch_size=len(x), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam or plain gradient descent, with learning rates that fall to 0 as a cosine over the whole run."""
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
            {"params": self.reinforce.parameters(), "lr": baseline_lr, "weight_decay": 0.0},
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


def layer_estimators(inputs: list[int], baseline: str, decay: float = 0.9, scale: bool = False) -> list[Reinforce]:
    """Make an estimator for each layer, given how many units the layer below has; their signals are rewards."""
    if baseline == "enumeration":
        return []
    if baseline == "vimco":
        return [Reinforce(LeaveOneOutBound(dim=0), maximize=True)]
    return [
        Reinforce(
            named_baseline(
                baseline,
                net=lambda units=units: nn.Sequential(  # type: ignore[misc]
                    nn.Linear(units, BASELINE_UNITS), nn.Tanh(), nn.Linear(BASELINE_UNITS, 1)
                ),
                sample_dim=0,
                decay=decay,
                also=WITHOUT_LAYERS,
            ),
            RunningScale(decay) if scale else None,
            maximize=True,
        )
        for units in inputs
    ]
