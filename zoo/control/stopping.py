from typing import Any


def stop_when_solved(module: Any, score: float) -> None:
    """Note in ``solved_after`` at which environment step a task was first solved, and stop the training there.

    Args:
        module: a LightningModule that has the buffers ``env_steps`` and ``solved_after`` (-1 until then), and among its
            hyperparameters ``solved_at``, the score from which on the task counts as solved (None: it never does), and
            ``stop_when_solved``.
        score: what the present policy reached.
    """
    threshold = module.hparams["solved_at"]
    if threshold is None or not score >= threshold:  # nor does what is not a number solve it
        return
    if module.solved_after < 0:
        module.solved_after.copy_(module.env_steps)
    if module.hparams["stop_when_solved"]:
        module.trainer.should_stop = True
