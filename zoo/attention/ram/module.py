from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int, Shaped
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo.attention.ram.brightness import checked_brightness
from zoo.attention.ram.diagnostics import diagnostics
from zoo.attention.ram.glimpse import GlimpseSensor, default_scales, default_size
from zoo.attention.ram.network import RecurrentAttentionNetwork, Rollout
from zoo.attention.ram.objective import hybrid_objective
from zoo.constraints import COUNT, NOT_NEGATIVE, POSITIVE, Range, check_ranges, optional
from zoo.gradients import Reinforce, RunningScale, named_baseline
from zoo.gradients.running import at_least_single
from zoo.training import load_module, total_loss

GAZES = ("learned", "spiral", "random", "centre")
DIAGNOSE_EVERY = 10  # training steps; the diagnostics are means over these
RANGES = {
    "glimpses": COUNT,
    "glimpse_size": optional(COUNT),
    "scales": optional(COUNT),
    "rollouts": COUNT,
    "locator_hidden": Range("0 (a linear locator) or a number of units", lambda x: x >= 0),
    "spread": Range("between 0 (all at the middle) and 1 (up to the span)", lambda x: 0 <= x <= 1),
    "policy_weight": NOT_NEGATIVE,
    "location_std": POSITIVE,
    "final_location_std": optional(POSITIVE),
    "lr": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
}


class Recognition(NamedTuple):
    """What the model says of a batch of pictures, and where it looked."""

    labels: Int[Tensor, " images"]
    """The most likely class after the last glimpse."""
    probabilities: Float[Tensor, "glimpses images classes"]
    """Of each class, after each glimpse; before the last one they are the probe's."""
    path: Float[Tensor, "glimpses images 2"]
    """Middle of each glimpse, ``(row, column)`` in pixels of the picture."""


class RecurrentAttention(pl.LightningModule):
    """RAM: a network that reads a picture through a few small glimpses and learns where to look.

    Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014. The objective is in
    ``hybrid_objective``, the networks in ``RecurrentAttentionNetwork``, the gradient of the gaze in
    ``zoo.gradients.Reinforce``.

    Args:
        image_shape: ``(channels, height, width)`` of the pictures.
        classes: names of the classes.
        background: brightness per channel outside the pictures.
        glimpses: number of glimpses, ``T``; the paper: 2 to 8.
        glimpse_size: side of a glimpse in pixels; None for the paper's, 8 on 28×28 digits and 12 on larger canvases.
        scales: patches a glimpse, each twice as wide; None for as many as cover three quarters of the longer side: the
            paper's 1 on 28×28, 3 or 4 on larger canvases.
        span: pixels from the middle for location 1; not given by the paper. See ``GlimpseSensor``.
        locator_hidden: units of a hidden ReLU layer in the location network. The paper's is linear (0); peers
            with a hidden layer learn faster.
        reinforce_core: let REINFORCE train the core too. See ``RecurrentAttentionNetwork``.
        spread: radius of the spiral on which the gaze begins, in units of the location; the paper's gaze begins near
            the middle (0). See ``RecurrentAttentionNetwork``.
        rollouts: walks per training picture, ``M``. The paper averages over episodes; peers use 1 to 10.
        gaze: ``learned``, or a control without a location network: the ``spiral`` on which the learned gaze begins,
            with the same noise; ``random`` glimpses; or all at the ``centre``.
        location_std: ``σ`` of the locations at the first step, in units of the location; not given by the paper,
            peers use 0.03 to 0.25. Testing uses the mean.
        final_location_std: ``σ`` at the last step, reached linearly; None keeps it fixed, as the paper and its
            peers do. The log-probability's gradient grows as ``1 / σ``, and its noise with it.
        policy_weight: weight of the policy's loss, which is summed over the moves. The paper: 1.
        lr: learning rate of AdamW at its start; falls to 0 as a cosine. The paper: SGD with momentum.
        weight_decay: of AdamW.
        estimator: ``baseline`` (a name of ``zoo.gradients.BASELINES``), ``decay`` and ``scale`` of ``Reinforce``. The
            paper: learned.

    Raises:
        ValueError: an option has no such value.

    Example:
        >>> model = RecurrentAttention(image_shape=(1, 28, 28), classes=tuple("0123456789"))
        >>> model(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).path.shape
        torch.Size([6, 3, 2])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: Sequence[str],
        background: Sequence[float] = (0.0,),
        glimpses: int = 6,
        glimpse_size: int | None = None,
        scales: int | None = None,
        span: float | None = None,
        locator_hidden: int = 128,
        reinforce_core: bool = False,
        spread: float = 0.6,
        rollouts: int = 1,
        gaze: str = "learned",
        location_std: float = 0.15,
        final_location_std: float | None = 0.05,
        policy_weight: float = 0.1,
        lr: float = 1.5e-3,
        weight_decay: float = 0.05,
        estimator: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        estimator = {"baseline": "learned", **(estimator or {})}
        self.save_hyperparameters()
        check_ranges(self.hparams, RANGES)
        checked_gaze(gaze)
        if "leave_one_out" in estimator["baseline"] and gaze == "learned" and rollouts < 2:
            raise ValueError(
                f"estimator={estimator['baseline']} compares walks over the same picture: rollouts must be at least 2, "
                f"got {rollouts}"
            )
        if reinforce_core and estimator.get("scale", False):
            raise ValueError(
                "estimator.scale divides the policy's loss alone, and with model.reinforce_core the core learns from "
                "the cross-entropy too: the running scale would shift their balance in every step. Leave one of them "
                "away, and set model.policy_weight"
            )
        extent = image_shape[1:]
        size = default_size(*extent) if glimpse_size is None else glimpse_size
        scales = default_scales(*extent, size) if scales is None else scales
        sensor = GlimpseSensor(image_shape, size, scales, span, background)
        self.network = RecurrentAttentionNetwork(sensor, len(classes), locator_hidden, reinforce_core, spread)
        self.reinforce = Reinforce(
            named_baseline(
                estimator["baseline"],
                net=lambda: nn.Linear(256, 1),
                sample_dim=1,
                decay=estimator.get("decay", 0.9),
            ),
            scale=RunningScale() if estimator.get("scale", False) else None,
            maximize=True,
        )
        if gaze != "learned" or glimpses == 1:
            # Nothing is drawn from the locator, and distributed training waits for the gradient of all that ask.
            self.network.locator.requires_grad_(False)
            self.reinforce.requires_grad_(False)
        if glimpses == 1:
            self.network.state_to_state.requires_grad_(False)
            self.network.probe.requires_grad_(False)

    @classmethod
    def load(cls, path: str | Path) -> "RecurrentAttention":
        """Read a trained model from a checkpoint, ready to be called.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of another model or version.
        """
        return load_module(cls, path)

    def forward(
        self, images: Shaped[Tensor, "images channels height width"], seed: int = 0, gaze: str | None = None
    ) -> Recognition:
        """Recognise pictures with the mean policy, from a random first glimpse.

        Args:
            images: uint8, or floats in [0, 1].
            seed: of the first locations, and of all for a random gaze.
            gaze: one of ``GAZES``; None for the gaze this model was trained with.

        Raises:
            ValueError: pictures of another shape, an empty batch, values that are not finite or outside [0, 1], or
                there is no such gaze.
        """
        with torch.no_grad():
            generator = torch.Generator(images.device).manual_seed(seed)  # leaves the training's randomness alone
            rollout = self.walk(checked_brightness(images), 1, generator=generator, gaze=gaze)
            probabilities = self.network.logits(rollout.states).softmax(-1).squeeze(1)
        path = self.network.sensor.centres(rollout.locations).squeeze(1)
        return Recognition(probabilities[-1].argmax(-1), probabilities, path)

    def walk(
        self,
        images: Float[Tensor, "images channels height width"],
        rollouts: int,
        std: float = 0.0,
        generator: torch.Generator | None = None,
        gaze: str | None = None,
    ) -> Rollout:
        """Draw all that is random, and look at the pictures."""
        glimpses, shape = self.hparams["glimpses"], (rollouts, len(images), 2)
        gaze = checked_gaze(gaze or self.hparams["gaze"])
        if gaze == "centre":
            return self.network.follow(images, images.new_zeros(glimpses, *shape))
        if gaze == "random":
            return self.network.follow(images, uniform((glimpses, *shape), images, generator))
        first = uniform(shape, images, generator)
        noise = images.new_zeros(glimpses - 1, *shape, dtype=at_least_single(images.dtype, images.device))
        if std > 0:
            noise.normal_(generator=generator)
        if gaze == "spiral":
            still = self.network.resting_places(glimpses - 1)[:, None, None] + std * noise
            return self.network.follow(images, torch.cat([first[None], still]))
        return self.network.rollout(images, first, noise, std)

    def location_std(self) -> float:
        """``σ`` at the present step of training."""
        start, end = self.hparams["location_std"], self.hparams["final_location_std"]
        if end is None:
            return float(start)
        progress = self.global_step / max(1, self.trainer.estimated_stepping_batches - 1)
        return float(start + (end - start) * min(1.0, progress))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Weigh and sum the losses of one batch."""
        images, labels = batch
        std = self.location_std()
        rollout = self.walk(images / 255, self.hparams["rollouts"], std)
        logits = self.network.logits(rollout.states)
        objective = hybrid_objective(logits, labels, rollout, std, self.reinforce)
        if batch_idx % DIAGNOSE_EVERY == 0:
            figures, size = diagnostics(objective, rollout), len(labels)
            error = figures.pop("train_error")
            each_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": size, "sync_dist": True}
            self.log("train_error", error, prog_bar=True, **each_epoch)
            self.log_dict(figures, **each_epoch)
        return total_loss(
            {
                "cross-entropy": objective.cross_entropy,
                "policy": self.hparams["policy_weight"] * objective.policy,
                "baseline": objective.baseline,
                "probe": objective.probe,
            },
            step=self.global_step,
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log how strongly the locator is pulled."""
        gradients = [p.grad for p in self.network.locator.parameters() if p.grad is not None]
        if gradients and self.trainer.fit_loop.epoch_loop.batch_idx % DIAGNOSE_EVERY == 0:
            norm = nn.utils.get_total_norm(gradients)
            self.log("locator_gradient_norm", norm, on_step=False, on_epoch=True, sync_dist=True)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm, and the probe's by itself: it must not shorten the steps of all else."""
        if gradient_clip_val is not None:
            probe = set(self.network.probe.parameters())
            for parameters in ([p for p in self.parameters() if p not in probe], probe):
                nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the error of the mean policy."""
        images, labels = batch
        wrong = (self(images, seed=batch_idx).labels != labels).float().mean()
        self.log("validation_error", wrong, batch_size=len(labels), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose learning rate falls to 0 as a cosine over the whole run."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.hparams["lr"], weight_decay=self.hparams["weight_decay"], fused=True
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def checked_gaze(gaze: str) -> str:
    """Give the name of a gaze back if there is one."""
    if gaze not in GAZES:
        raise ValueError(f"there is no gaze {gaze!r}; choose one of {', '.join(GAZES)}")
    return gaze


def uniform(shape: Sequence[int], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw locations uniformly from [-1, 1], in single precision at least, and give them in that of the images."""
    dtype = at_least_single(torch.get_default_dtype(), images.device)
    return (torch.rand(*shape, dtype=dtype, device=images.device, generator=generator) * 2 - 1).to(images.dtype)
