import pytorch_lightning as pl
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch.optim import Optimizer


class UnscaledMixedPrecision(MixedPrecision):
    """Mixed precision in bfloat16, which scales no loss, so that gradients of fused optimisers can be clipped.

    Lightning refuses that for every mixed precision, as a fused optimiser takes the scale of float16 back in its step.
    """

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: GradClipAlgorithmType = GradClipAlgorithmType.NORM,
    ) -> None:
        """Clip gradients as without mixed precision."""
        super(MixedPrecision, self).clip_gradients(optimizer, clip_val, gradient_clip_algorithm)


def allow_clipping(trainer: pl.Trainer) -> None:
    """Let a trainer in bfloat16 clip the gradients of fused optimisers."""
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
        trainer.strategy.precision_plugin = UnscaledMixedPrecision("bf16-mixed", plugin.device)
