from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pyro.infer import ELBO
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo._constraints import POSITIVE, check_constraints, optional
from zoo.inference._posterior_moments import finite_estimate
from zoo.inference.diagnostics import PosteriorSamples, sample_posterior
from zoo.inference.elbo._messages import NonFiniteELBOError
from zoo.inference.parameter_store import ParameterStore
from zoo.training import LoadableModule, NonFiniteError, sum_losses

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
}
SCHEDULES = ("constant", "cosine")
VALIDATION_SAMPLES = 500
VALIDATION_SEED = 0

CONSTRAINTS = {"lr": POSITIVE, "baseline_lr": optional(POSITIVE)}


class RepeatedBatch:
    """A loader that yields the same batch, the arguments of model and guide, in each step of an epoch.

    After ``load_state_dict``, the first pass yields the remaining steps of the interrupted epoch.

    Args:
        args: arguments of model and guide.
        num_steps: steps per epoch.

    Example:
        >>> list(RepeatedBatch((1, 2), 3))
        [(1, 2), (1, 2), (1, 2)]
    """

    def __init__(self, args: Sequence[Any], num_steps: int):
        self.args, self.num_steps = tuple(args), num_steps
        self.num_yielded = self.start = 0

    def __len__(self) -> int:
        """Return the number of steps of a whole epoch."""
        return self.num_steps

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        start, self.start = self.start, 0
        for step in range(start, self.num_steps):
            self.num_yielded = step + 1
            yield self.args

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps yielded in this epoch."""
        return {"num_yielded": self.num_yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the steps already yielded; after the last step, with a new epoch."""
        self.num_yielded = state["num_yielded"]
        self.start = self.num_yielded % self.num_steps


class VariationalInference(LoadableModule):
    """Fits the guide of a Pyro program by stochastic optimization of an ELBO.

    A batch holds the arguments of model and guide. Parameters created by ``pyro.param``, those of modules and the
    networks of learned baselines belong to this module; Pyro's global store is neither read nor changed.

    Args:
        model: Pyro model.
        guide: Pyro guide, a function or a module.
        elbo: ``BlackBoxELBO``, or another ELBO of Pyro with a ``differentiable_loss``.
        example: arguments of a first run, in which all parameters must be created.
        optimizer: ``adam``, or ``adagrad`` (used with a learning rate of 1 in the BBVI paper).
        lr: initial learning rate.
        baseline_lr: learning rate of learned baselines; None for ``lr``.
        schedule: ``constant``, or ``cosine`` decay to 0 over the whole run.

    Raises:
        ValueError: an option is invalid, there are no parameters, or model and guide do not match.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> import pytorch_lightning as pl
        >>> from zoo.inference import BlackBoxELBO, RepeatedBatch
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(len(x)))))
        >>> x = torch.tensor([-1.0, 2.0])
        >>> module = VariationalInference(model, guide, BlackBoxELBO(num_particles=4), example=(x,))
        >>> trainer = pl.Trainer(
        ...     max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        ...     enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        ... )
        >>> trainer.fit(module, RepeatedBatch((x,), 20), RepeatedBatch((x,), 1))
        >>> module.store.params["logits_unconstrained"] > 0
        tensor([False,  True])
        >>> module.sample_posterior((x,), num_samples=10).sites["z"].shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        elbo: ELBO,
        example: Sequence[Any] = (),
        optimizer: str = "adam",
        lr: float = 0.05,
        baseline_lr: float | None = None,
        schedule: str = "cosine",
    ):
        super().__init__()
        for what, choice, choices in (("optimizer", optimizer, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
            if choice not in choices:
                raise ValueError(f"unknown {what} {choice!r}; choose one of {', '.join(choices)}")
        self.save_hyperparameters("optimizer", "lr", "baseline_lr", "schedule")
        check_constraints(self.hparams, CONSTRAINTS)
        self.model, self.guide, self.elbo = model, guide, elbo
        self.store = ParameterStore()
        self._first_run(tuple(example))

    def _first_run(self, args: tuple[Any, ...]) -> None:
        """Run the program once without training, so that all parameters are created."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        with self.store.capture(self):
            self.elbo.differentiable_loss(self.model, self.guide, *args)  # type: ignore[attr-defined]
        for module in self.modules():  # modules created just now
            module.training = modes.get(module, True)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("neither the model nor the guide has trainable parameters")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return a differentiable estimate of the negative ELBO."""
        try:
            with self.store.activate(self):
                loss = self.elbo.differentiable_loss(self.model, self.guide, *_unpack_batch(batch))  # type: ignore[attr-defined]
        except (ValueError, FloatingPointError) as error:
            self._raise_failed_step(error)
            raise
        self.log("train_bound", -loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=1)
        return sum_losses({"ELBO": loss}, step=self.global_step)

    def _raise_failed_step(self, error: Exception) -> None:
        """Raise ``NonFiniteError`` if parameters or loss are not finite, else ``ValueError`` unless it is step 0."""
        nonfinite = [name for name, parameter in self.named_parameters() if not bool(parameter.isfinite().all())]
        if not nonfinite and not isinstance(error, FloatingPointError):
            if self.global_step == 0:
                return
            raise ValueError(
                f"step {self.global_step} failed: {error}; if parameters have diverged, lower the learning rate"
            ) from error
        reason = f"ELBO (nan), because of the values of {', '.join(nonfinite)}"
        if not nonfinite:  # without the ELBO's own step count, which restarts in a resumed run
            reason = error.reason if isinstance(error, NonFiniteELBOError) else str(error)
        raise NonFiniteError(
            f"the loss is not finite at step {self.global_step}: {reason}; the step was not applied"
        ) from error

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the ELBO of fresh samples, with the same seed each time."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(VALIDATION_SEED)
            found = finite_estimate(self.sample_posterior(_unpack_batch(batch), VALIDATION_SAMPLES))
        self.log("validation_elbo", found.value, prog_bar=True, batch_size=1)
        self.log("validation_elbo_std_error", found.standard_error, batch_size=1)

    def sample_posterior(
        self, args: Sequence[Any] = (), num_samples: int = 1000, chunk_size: int = 250, progress: bool = False
    ) -> PosteriorSamples:
        """Return samples of the guide; see ``zoo.inference.diagnostics.sample_posterior``."""
        with self.store.activate(self):
            return sample_posterior(
                self.model, self.guide, args, num_samples=num_samples, chunk_size=chunk_size, progress=progress
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its schedule."""
        lr, baseline_lr = self.hparams["lr"], self.hparams["baseline_lr"]
        groups = [
            {"params": self.fitted_parameters(), "lr": lr},
            {"params": self._baseline_parameters(), "lr": lr if baseline_lr is None else baseline_lr},
        ]
        optimizer = OPTIMIZERS[self.hparams["optimizer"]](groups, fused=True)
        if self.hparams["schedule"] == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def fitted_parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters of guide and model, without those of baselines."""
        baselines = {id(parameter) for parameter in self._baseline_parameters()}
        return [x for x in self.parameters() if x.requires_grad and id(x) not in baselines]

    def _baseline_parameters(self) -> list[nn.Parameter]:
        return list(self.elbo.parameters()) if isinstance(self.elbo, nn.Module) else []


def _unpack_batch(batch: Any) -> tuple[Any, ...]:
    """Return the elements of a tuple or list; any other object is a single argument."""
    return tuple(batch) if type(batch) in (tuple, list) else (batch,)
