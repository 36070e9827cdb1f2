import logging

import pytorch_lightning as pl

logger = logging.getLogger(__name__)

MAX_CLIPPED_LOCATIONS = 0.9  # fraction above which the policy counts as stuck at the border


class LocationPolicyMonitor(pl.Callback):
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
