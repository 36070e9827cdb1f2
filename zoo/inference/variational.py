from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.infer import ELBO
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from zoo.constraints import POSITIVE, check_constraints, optional
from zoo.inference.diagnostics import Draws, ElboEstimate, draw, elbo_estimate
from zoo.inference.parameter_store import ParameterStore
from zoo.training import LoadableModule, NonFiniteError, sum_losses

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
}
SCHEDULES = ("constant", "cosine")
VALIDATION_DRAWS = 500
VALIDATION_SEED = 0

CONSTRAINTS = {"lr": POSITIVE, "baseline_lr": optional(POSITIVE)}


class VariationalInference(LoadableModule):
    """Fits the guide of a Pyro program, by automatic optimisation of an ELBO.

    A batch holds the arguments of model and guide. What these make with ``pyro.param`` becomes this module's own, as do
    the parameters of modules and the networks of learned baselines; Pyro's global store is neither read nor changed.

    Args:
        model: Pyro model.
        guide: of it: a function, or any module.
        elbo: ``BlackBoxELBO``, or another ELBO of Pyro that has a ``differentiable_loss``.
        example: arguments of a first run, in which all parameters must be made.
        optimizer: ``adam``, or ``adagrad``, with which the paper on black-box variational inference takes a rate of 1.
        lr: learning rate, at the start.
        baseline_lr: that of learned baselines; None for the same.
        schedule: ``constant``, or ``cosine`` to fall to 0 over the whole run.

    Raises:
        ValueError: an option has no such value, there is nothing to learn, or model and guide do not fit each other.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from zoo.inference.elbo import BlackBoxELBO
        >>> from zoo.inference.repeated_batch import Steps
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
        >>> trainer.fit(module, Steps((x,), 100), Steps((x,), 1))
        >>> module.store.kept["logits_unconstrained"] > 0
        tensor([False,  True])
        >>> module.draw((x,), draws=10).sites["z"].shape
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
                raise ValueError(f"there is no {what} {choice!r}; choose one of {', '.join(choices)}")
        self.save_hyperparameters("optimizer", "lr", "baseline_lr", "schedule")
        check_constraints(self.hparams, CONSTRAINTS)
        self.model, self.guide, self.elbo = model, guide, elbo
        self.store = ParameterStore()
        self._first_run(tuple(example))

    def _first_run(self, args: tuple[Any, ...]) -> None:
        """Let everything be made that is to be optimised; nothing learns yet."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        with self.store.adopting(self):
            self.elbo.differentiable_loss(self.model, self.guide, *args)  # type: ignore[attr-defined]
        for module in self.modules():  # those that were made now are to be trained
            module.training = modes.get(module, True)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("neither the model nor the guide has a parameter, so there is nothing to learn")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Estimate the negative ELBO, with its gradient."""
        try:
            with self.store.opened(self):
                loss = self.elbo.differentiable_loss(self.model, self.guide, *arguments_of(batch))  # type: ignore[attr-defined]
        except (ValueError, FloatingPointError) as error:
            self._blame(error)
            raise
        self.log("train_bound", -loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=1)
        return sum_losses({"ELBO": loss}, step=self.global_step)

    def _blame(self, error: Exception) -> None:
        """Say what is not finite, if that is what an error comes from: distributions refuse such parameters too."""
        spoilt = [name for name, parameter in self.named_parameters() if not bool(parameter.isfinite().all())]
        if not spoilt and not isinstance(error, FloatingPointError):
            if self.global_step == 0:
                return
            raise ValueError(
                f"step {self.global_step} cannot be taken: {error}; if parameters have grown too large, lower the "
                "learning rate"
            ) from error
        reason = f"ELBO (nan), because of the values of {', '.join(spoilt)}"
        if not spoilt:  # leave out the ELBO's own count of steps, which begins anew in a resumed run
            reason = str(error).partition(": ")[2]
        raise NonFiniteError(
            f"the loss is not finite at step {self.global_step}: {reason}; nothing was changed by this step"
        ) from error

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the ELBO of fresh draws, with the same random numbers every time."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(VALIDATION_SEED)
            found = finite_estimate(self.draw(arguments_of(batch), VALIDATION_DRAWS))
        self.log("validation_elbo", found.value, prog_bar=True, batch_size=1)
        self.log("validation_elbo_spread", found.standard_error, batch_size=1)

    def draw(self, args: Sequence[Any] = (), draws: int = 1000, at_once: int = 250, progress: bool = False) -> Draws:
        """Draw from the guide, and judge each draw; see ``zoo.inference.diagnostics``.

        Args:
            args: of model and guide.
            draws: how many.
            at_once: most draws in one run.
            progress: show it where draws are made one by one.

        Raises:
            ValueError: the numbers make no sense.
        """
        with self.store.opened(self):
            return draw(self.model, self.guide, args, draws=draws, at_once=at_once, progress=progress)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer, and its schedule over the whole run."""
        lr, baseline_lr = self.hparams["lr"], self.hparams["baseline_lr"]
        groups = [
            {"params": self.fitted_parameters(), "lr": lr},
            {"params": self._of_baselines(), "lr": lr if baseline_lr is None else baseline_lr},
        ]
        optimizer = OPTIMIZERS[self.hparams["optimizer"]](groups, fused=True)
        if self.hparams["schedule"] == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def fitted_parameters(self) -> list[nn.Parameter]:
        """Give the parameters of guide and model that are learned, without those of baselines."""
        baselines = {id(parameter) for parameter in self._of_baselines()}
        return [x for x in self.parameters() if x.requires_grad and id(x) not in baselines]

    def _of_baselines(self) -> list[nn.Parameter]:
        return list(self.elbo.parameters()) if isinstance(self.elbo, nn.Module) else []


def finite_estimate(draws: Draws) -> ElboEstimate:
    """Estimate the ELBO, or stop the run.

    Raises:
        NonFiniteError: the weight of a draw is NaN or infinite.
    """
    try:
        return elbo_estimate(draws)
    except FloatingPointError as error:
        raise NonFiniteError(f"the ELBO is not finite: {error}") from error


def arguments_of(batch: Any) -> tuple[Any, ...]:
    """Give the arguments that a batch holds: the parts of a tuple or list, or one alone, as named tuples are.

    Example:
        >>> arguments_of([1, 2]), arguments_of(1)
        ((1, 2), (1,))
    """
    return tuple(batch) if type(batch) in (tuple, list) else (batch,)
