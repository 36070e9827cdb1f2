import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo._constraints import COUNT, NOT_NEGATIVE, POSITIVE, Constraint, check_constraints, optional
from zoo.attention.ram._images import to_unit_range
from zoo.attention.ram.glimpse import GlimpseSensor
from zoo.attention.ram.network import HIDDEN_SIZE, RecurrentAttentionNetwork, Trajectory
from zoo.attention.ram.objective import hybrid_objective
from zoo.gradients import Reinforce, RunningStd, make_baseline
from zoo.gradients._tensors import at_least_float32
from zoo.gradients.estimators import complete_options
from zoo.training import LoadableModule, sum_losses
from zoo.training._optimizers import with_cosine_schedule

LOCATION_POLICIES = ("learned", "spiral", "random", "center")
CONSTRAINTS = {
    "num_glimpses": COUNT,
    "patch_size": optional(COUNT),
    "num_scales": optional(COUNT),
    "num_samples": COUNT,
    "location_policy": Constraint(f"one of {', '.join(LOCATION_POLICIES)}", lambda x: x in LOCATION_POLICIES),
    "location_hidden": Constraint("0 (a linear location network) or a number of units", lambda x: x >= 0),
    "spiral_radius": Constraint("between 0 (all at the center) and 1 (up to location_range)", lambda x: 0 <= x <= 1),
    "policy_weight": NOT_NEGATIVE,
    "location_std": POSITIVE,
    "final_location_std": optional(POSITIVE),
    "lr": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
}
LOG_EVERY_N_STEPS = 10  # training metrics are computed on every tenth batch, and averaged over an epoch


class Prediction(NamedTuple):
    """Predicted classes of a batch of images, and the fixations they were predicted from.

    Example:
        >>> model = RecurrentAttention(image_shape=(1, 28, 28), classes=tuple("0123456789"), num_glimpses=4)
        >>> labels, probabilities, fixations = model(torch.rand(3, 1, 28, 28))
        >>> labels.shape, probabilities.shape, fixations.shape
        (torch.Size([3]), torch.Size([4, 3, 10]), torch.Size([4, 3, 2]))
    """

    labels: Int[Tensor, " images"]
    """Most likely class after the last glimpse."""
    probabilities: Float[Tensor, "glimpses images classes"]
    """Class probabilities after each glimpse: the probe's, after the last one the classifier's."""
    fixations: Float[Tensor, "glimpses images 2"]
    """Center of each glimpse, ``(row, column)`` in pixels of the image."""


class RecurrentAttention(LoadableModule):
    """RAM: a recurrent network that classifies images from a few small glimpses, and learns where to take them.

    Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014. The objective is
    ``hybrid_objective``, the networks are in ``RecurrentAttentionNetwork``; ``zoo.gradients.Reinforce`` estimates the
    gradient of the location policy.

    Args:
        image_shape: ``(channels, height, width)`` of the images.
        classes: names of the classes.
        fill_value: pixel value per channel outside the images.
        num_glimpses: number of glimpses, ``T``; the paper: 2 to 8.
        patch_size: side of a patch in pixels; None for the paper's, 8 on 28×28 digits and 12 on larger canvases.
        num_scales: patches in a glimpse, each twice as wide as the one before; None for as many as cover three quarters
            of the longer side: the paper's 1 on 28×28, 3 or 4 on larger canvases.
        location_range: distance in pixels from the center to location 1; see ``GlimpseSensor``.
        location_hidden: units of a hidden ReLU layer in the location network; 0 for the paper's linear network, which
            learns more slowly.
        reinforce_core: whether REINFORCE trains the core too; see ``RecurrentAttentionNetwork``.
        spiral_radius: radius of the spiral to which the location network adds offsets, in normalized coordinates; 0 for
            the paper's network.
        num_samples: sampled trajectories per training image, ``M``. The paper averages over episodes;
            reimplementations use 1 to 10.
        location_policy: ``learned``, or a fixed policy for comparison: ``spiral``, the initial locations of the
            learned policy, with the same noise; ``random``; or ``center``.
        location_std: ``σ`` of the locations at the first step, in normalized coordinates; not specified in the paper,
            reimplementations use 0.03 to 0.25. Evaluation uses the mean.
        final_location_std: ``σ`` at the last step, reached linearly; None keeps it fixed, as the paper and its
            reimplementations do. The gradient of the log-probability grows as ``1 / σ``, and its variance with it.
        policy_weight: weight of the policy loss, which is summed over the steps. The paper: 1.
        lr: initial learning rate of AdamW, annealed to 0 by a cosine. The paper: SGD with momentum.
        weight_decay: weight decay of AdamW.
        estimator: options of ``Reinforce``: ``baseline`` (one of ``zoo.gradients.BASELINES``; the paper: learned),
            ``decay`` and ``scale``.

    Raises:
        ValueError: an option has an invalid value.

    Example:
        >>> model = RecurrentAttention(image_shape=(1, 28, 28), classes=tuple("0123456789"))
        >>> model(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).fixations.shape
        torch.Size([6, 3, 2])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: Sequence[str],
        fill_value: Sequence[float] = (0.0,),
        num_glimpses: int = 6,
        patch_size: int | None = None,
        num_scales: int | None = None,
        location_range: float | None = None,
        location_hidden: int = 128,
        reinforce_core: bool = False,
        spiral_radius: float = 0.6,
        num_samples: int = 1,
        location_policy: str = "learned",
        location_std: float = 0.15,
        final_location_std: float | None = 0.05,
        policy_weight: float = 0.1,
        lr: float = 1.5e-3,
        weight_decay: float = 0.05,
        estimator: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        estimator = complete_options(estimator, "ram", provides=["signals"], default_baseline="learned")
        self.save_hyperparameters()
        check_constraints(self.hparams, CONSTRAINTS)
        self._check_estimator(estimator)
        _, height, width = image_shape
        if patch_size is None:
            patch_size = 8 if min(height, width) <= 32 else 12
        if num_scales is None:
            side = max(height, width)
            num_scales = 1 if side <= 32 else 1 + max(0, math.ceil(math.log2(0.75 * side / patch_size)))
        sensor = GlimpseSensor(image_shape, patch_size, num_scales, location_range, fill_value)
        self.network = RecurrentAttentionNetwork(sensor, len(classes), location_hidden, reinforce_core, spiral_radius)
        baseline = make_baseline(
            estimator["baseline"],
            make_net=lambda: nn.Linear(HIDDEN_SIZE, 1),
            sample_dim=1,
            decay=estimator["decay"],
        )
        self.reinforce = Reinforce(
            baseline, RunningStd(estimator["decay"]) if estimator["scale"] else None, maximize=True
        )
        # Distributed training waits for a gradient of every parameter that requires one.
        if location_policy != "learned" or num_glimpses == 1:
            self.network.location_net.requires_grad_(False)
            self.reinforce.requires_grad_(False)
        if num_glimpses == 1:
            self.network.hidden_to_hidden.requires_grad_(False)
            self.network.probe.requires_grad_(False)

    def _check_estimator(self, estimator: Mapping[str, Any]) -> None:
        few_samples = self.hparams["location_policy"] == "learned" and self.hparams["num_samples"] < 2
        if few_samples and "leave_one_out" in estimator["baseline"]:
            raise ValueError(
                f"estimator.baseline={estimator['baseline']} compares trajectories of the same image: num_samples must "
                f"be at least 2, got {self.hparams['num_samples']}"
            )
        if self.hparams["reinforce_core"] and estimator["scale"]:
            raise ValueError(
                "estimator.scale divides only the policy loss, but with model.reinforce_core the core learns from the "
                "cross-entropy too: the running scale would change their balance in every step. Disable one of them, "
                "and set model.policy_weight"
            )

    def forward(
        self, images: Shaped[Tensor, "images channels height width"], seed: int = 0, location_policy: str | None = None
    ) -> Prediction:
        """Classify images, uint8 or floats in [0, 1], with the mean policy, from a random first location.

        ``seed`` is that of all random locations; ``location_policy`` defaults to the one the model was trained with.

        Raises:
            ValueError: the images have another shape, are empty, or contain values that are not finite or outside
                [0, 1]; or there is no such policy.
        """
        with torch.no_grad():
            generator = torch.Generator(images.device).manual_seed(seed)  # the global random state is not used
            images = to_unit_range(images)
            trajectory = self.sample_trajectory(images, 1, generator=generator, location_policy=location_policy)
            probabilities = self.network.logits(trajectory.states).softmax(-1).squeeze(1)
        fixations = self.network.sensor.pixel_coordinates(trajectory.locations).squeeze(1)
        return Prediction(probabilities[-1].argmax(-1), probabilities, fixations)

    def sample_trajectory(
        self,
        images: Float[Tensor, "images channels height width"],
        num_samples: int,
        std: float = 0.0,
        generator: torch.Generator | None = None,
        location_policy: str | None = None,
    ) -> Trajectory:
        """Sample ``num_samples`` trajectories for each image; ``std=0`` is the mean policy."""
        num_glimpses, shape = self.hparams["num_glimpses"], (num_samples, len(images), 2)
        policy = location_policy or self.hparams["location_policy"]
        check_constraints({"location_policy": policy}, CONSTRAINTS)
        if policy == "center":
            return self.network.trajectory_at(images, images.new_zeros(num_glimpses, *shape))
        if policy == "random":
            return self.network.trajectory_at(images, _uniform((num_glimpses, *shape), images, generator))
        first = _uniform(shape, images, generator)
        noise = images.new_zeros(num_glimpses - 1, *shape, dtype=at_least_float32(images.dtype, images.device))
        if std > 0:
            noise.normal_(generator=generator)
        if policy == "spiral":
            others = self.network.fixed_locations(num_glimpses - 1)[:, None, None] + std * noise
            return self.network.trajectory_at(images, torch.cat([first[None], others]))
        return self.network.sample_trajectory(images, first, noise, std)

    def location_std(self) -> float:
        """Return ``σ`` at the current training step."""
        start, end = self.hparams["location_std"], self.hparams["final_location_std"]
        if end is None:
            return float(start)
        progress = self.global_step / max(1, self.trainer.estimated_stepping_batches - 1)
        return float(start + (end - start) * min(1.0, progress))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted sum of the loss terms."""
        images, labels = batch
        std = self.location_std()
        trajectory = self.sample_trajectory(images / 255, self.hparams["num_samples"], std)
        logits = self.network.logits(trajectory.states)
        objective = hybrid_objective(logits, labels, trajectory, std, self.reinforce)
        if batch_idx % LOG_EVERY_N_STEPS == 0:
            metrics = objective.metrics(trajectory)
            error = metrics.pop("train_error")
            per_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
            per_epoch["batch_size"] = len(labels)
            self.log("train_error", error, prog_bar=True, **per_epoch)
            self.log_dict(metrics, **per_epoch)
        terms = {
            "cross-entropy": objective.cross_entropy,
            "policy": self.hparams["policy_weight"] * objective.policy_loss,
            "baseline": objective.baseline_loss,
            "probe": objective.probe_loss,
        }
        return sum_losses(terms, step=self.global_step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradient norm of the location network, before clipping."""
        gradients = [p.grad for p in self.network.location_net.parameters() if p.grad is not None]
        if gradients and self.trainer.fit_loop.epoch_loop.batch_idx % LOG_EVERY_N_STEPS == 0:
            norm = nn.utils.get_total_norm(gradients)
            self.log("location_grad_norm", norm, on_step=False, on_epoch=True, sync_dist=True)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: int | float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient norm; that of the probe separately, so that it does not affect the other parameters."""
        if gradient_clip_val is not None:
            probe = set(self.network.probe.parameters())
            for parameters in ([p for p in self.parameters() if p not in probe], probe):
                nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the error rate of the mean policy."""
        images, labels = batch
        wrong = (self(images, seed=batch_idx).labels != labels).float().mean()
        self.log("validation_error", wrong, batch_size=len(labels), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a learning rate annealed to 0 by a cosine over the whole run."""
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
        return with_cosine_schedule(self, optimizer)


def _uniform(shape: Sequence[int], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return locations drawn uniformly from [-1, 1] in single precision at least, in the images' dtype."""
    dtype = at_least_float32(torch.get_default_dtype(), images.device)
    return (torch.rand(*shape, dtype=dtype, device=images.device, generator=generator) * 2 - 1).to(images.dtype)
