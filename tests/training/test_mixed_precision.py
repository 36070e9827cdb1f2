import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from zoo.training._fit import allow_clipping


class Fused(BoringModel):
    def __init__(self):
        super().__init__()
        self.norms = []

    def training_step(self, batch, batch_idx):
        return 1000 * self.layer(batch).pow(2).sum()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), fused=True)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]).item())


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*log_every_n_steps", "ignore:.*tensorboardX")
class TestBf16Mixed:
    def trainer(self):
        return pl.Trainer(
            accelerator="cpu", precision="bf16-mixed", gradient_clip_val=0.5, max_steps=2, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip

    def test_gradients_of_a_fused_optimizer_are_clipped_in_bf16(self):
        trainer, module = self.trainer(), Fused()
        allow_clipping(trainer)
        trainer.fit(module)
        assert module.norms == pytest.approx([0.5, 0.5], rel=1e-3)

    def test_lightning_alone_refuses_to_clip_gradients_of_a_fused_optimizer(self):
        with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
            self.trainer().fit(Fused())
