import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler


def with_cosine_schedule(module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> OptimizerLRScheduler:
    """Return an optimizer of a module with its learning rate annealed to 0 by a cosine over the whole run."""
    steps = int(module.trainer.estimated_stepping_batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
