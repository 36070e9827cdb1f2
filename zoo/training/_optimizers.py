import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler


def adamw_with_cosine_schedule(module: pl.LightningModule) -> OptimizerLRScheduler:
    """Return AdamW with the module's ``weight_decay`` and its ``lr``, annealed to 0 by a cosine over the whole run."""
    lr, weight_decay = module.hparams["lr"], module.hparams["weight_decay"]
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    steps = int(module.trainer.estimated_stepping_batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
