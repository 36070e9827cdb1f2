import logging

import pytorch_lightning as pl

logger = logging.getLogger(__name__)

STUCK = 0.9  # fraction of clipped locations above which the gaze is called stuck


class LearningCheck(pl.Callback):
    """Say in plain words when the gaze is not learning, once for each reason."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the epoch's mean diagnostics."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if figures.get("reward_variance") == 0 and figures["train_error"] > 0:
            self._say(
                "no gradient",
                "No walk of an epoch was rewarded, so that the gaze had nothing to learn from: the class was never "
                "right. Are the labels those of the pictures? A smaller model.lr may help.",
            )
        if figures.get("clipped_locations", 0.0) > STUCK:
            self._say(
                "stuck",
                f"{figures['clipped_locations']:.0%} of the locations lie beyond the border, where the sensor clips "
                "them: the gaze is stuck. Lower model.policy_weight or model.location_std, or widen model.span.",
            )

    def _say(self, reason: str, warning: str) -> None:
        if reason not in self.said:
            self.said.add(reason)
            logger.warning(warning)
