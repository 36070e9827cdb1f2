import pytorch_lightning as pl
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch.optim import Optimizer


class UnscaledMixedPrecision(MixedPrecision):
    """Mixed precision in bfloat16 that clips gradients of fused optimizers.

    Lightning raises for every mixed precision, since a fused optimizer unscales float16 gradients within its step;
    bfloat16 needs no scaling.
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
    """Allow a trainer in bfloat16 to clip gradients of fused optimizers."""
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
        trainer.strategy.precision_plugin = UnscaledMixedPrecision("bf16-mixed", plugin.device)
