import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from zoo.constraints import COUNT, POSITIVE, Constraint, check_constraints, optional
from zoo.data.posteriordb import ReferenceMoments
from zoo.inference.bbvi import ProgramInference, data_root
from zoo.inference.callbacks import StopWhenSettled
from zoo.inference.diagnostics import (
    Draws,
    ElboEstimate,
    ParetoK,
    Verdict,
    elbo_figure,
    no_k_hat,
    of_points,
    posterior_figure,
    tail_index,
)
from zoo.inference.mean_field_reference import distance_from, distributions, mean_field_optimum, refuse_without_optimum
from zoo.inference.posterior_moments import Quantities, elements_of, moments, moments_table, named_quantities
from zoo.inference.repeated_batch import Steps
from zoo.inference.variational import finite_estimate
from zoo.plotting import save_figure
from zoo.training import Experiment, Loaders, read_checkpoint, read_metrics

REPORT_SEED = 1  # not that of validation, whose draws chose the checkpoint
SHOWN = 20  # quantities that are told of
CONSTRAINTS = {
    "steps_per_epoch": COUNT,
    "evaluation_draws": Constraint("at least 2", lambda x: x >= 2),
    "stop_tolerance": optional(POSITIVE),
}


class ProgramExperiment(Experiment):
    """Fitting the guide of a program, and what is reported at its end.

    Args:
        program: see ``ProgramInference``.
        trust: likewise.
        estimator: likewise.
        steps_per_epoch: after which the ELBO is measured.
        evaluation_draws: of the guide, at the end.
        stop_tolerance: end the training once the average of the parameters is known as well as this, in their own
            units, and take that average; see ``StopWhenSettled``. None to train to the end.
        compare_with_optimum: also find the optimum of the guide's family, and say how far from it the guide is.
        options: of ``ProgramInference``.

    Raises:
        ValueError: a number makes no sense, the optimum cannot be found, or as ``ProgramInference``.
        FileNotFoundError: the program or its data are missing.
    """

    # The last guide counts: among those near the optimum, the ELBO of 500 draws prefers the ones these draws flatter.
    monitor, monitor_mode = None, "max"

    def __init__(
        self,
        program: str,
        trust: bool,
        estimator: Mapping[str, Any] | None,
        steps_per_epoch: int = 100,
        evaluation_draws: int = 4000,
        stop_tolerance: float | None = None,
        compare_with_optimum: bool = False,
        **options: Any,
    ):
        check_constraints(
            {
                "steps_per_epoch": steps_per_epoch,
                "evaluation_draws": evaluation_draws,
                "stop_tolerance": stop_tolerance,
            },
            CONSTRAINTS,
        )
        if stop_tolerance is not None and options.get("schedule") != "constant":
            raise ValueError(
                "stop_tolerance asks where parameters settle, and a falling learning rate makes them settle anywhere: "
                "set model.schedule=constant as well, or leave model.stop_tolerance away"
            )
        self.settling = None if stop_tolerance is None else StopWhenSettled(stop_tolerance, steps_per_epoch)
        self.name, self.trust, self.evaluation_draws = program, trust, evaluation_draws
        self.compare_with_optimum = compare_with_optimum
        self.module = ProgramInference(program=program, trust=trust, estimator=estimator, **options)
        self.program, root = self.module.program, data_root()
        self.data = self.program.load(root)
        if compare_with_optimum:
            refuse_without_optimum(program, self.program, self.data)
        self.reference = None if self.program.reference is None else self.program.reference(root)
        self.loaders = Loaders(
            train=lambda rank, ranks: Steps(self.data, steps_per_epoch),
            validation=lambda rank, ranks: Steps(self.data, 1),
        )

    def callbacks(self) -> list[pl.Callback]:
        """Callbacks of this kind of model alone."""
        return [] if self.settling is None else [self.settling]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Judge the guide by fresh draws, and draw the posterior and how the ELBO grew.

        Returns:
            Figures by plain names: the ELBO in nats, k-hat, moments of the first quantities, and the distances from the
            reference and from the optimum of the guide's family.
        """
        draw_curve(self.name, folder)
        return self.evaluate(checkpoint, folder)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Judge the guide of a checkpoint by fresh draws, and draw its posterior."""
        module = ProgramInference.load(checkpoint, trust=self.trust)
        torch.manual_seed(REPORT_SEED)
        draws = module.draw(self.data, self.evaluation_draws, progress=True)
        elbo = finite_estimate(draws)
        figures = {"elbo": elbo.value, "elbo_spread": elbo.standard_error, "draws": float(elbo.draws)}
        if draws.points:
            figures["points"] = float(draws.points)
        elif no_k_hat(draws) is None and math.isfinite((k := tail_index(draws.log_weights)).value):
            figures |= {"k_hat": k.value, "k_hat_spread": k.standard_error}
        if self.compare_with_optimum:
            optimum = mean_field_optimum(self.program, self.data)
            figures |= distance_from(optimum, distributions(module.guide, self.data))
        if self.settling is not None:
            self.settling.load_state_dict(read_checkpoint(checkpoint)["callbacks"][self.settling.state_key])
            figures |= settled_figures(self.settling.verdict)
        found, count = self._quantities(draws)
        if self.reference is not None:
            draw_posterior(found, self.reference, folder / "posterior.png")
        if draws.local:
            figures["local_sites"] = float(len(draws.local))
        return {**figures, "quantities": float(count), **moments(found, self.reference)}

    def _quantities(self, draws: Draws) -> tuple[Quantities, int]:
        """Take what the reference speaks of; without one, the first elements of the sites. And how many there are."""
        if self.reference is None or self.program.quantities is None:
            return elements_of(draws.sites, SHOWN, draws.num_categories)
        found = named_quantities(draws.sites, self.program.quantities, self.reference.names)
        return found, len(found)

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words how good the bound is, whether to trust the guide, and what it says."""
        elbo = ElboEstimate(figures["elbo"], figures["elbo_spread"], int(figures["draws"]))
        lines = [f"{self.name}: {self.program.description}", f"  {elbo}"]
        if "k_hat" in figures:
            lines.append(f"  {ParetoK(figures['k_hat'], figures['k_hat_spread'], elbo.draws)}")
        if "points" in figures:
            lines.append(f"  {of_points(int(figures['points']))}")
        if "settled" in figures:
            lines.append(f"  {when_settled(figures)}")
        if "optimum_mean_gap" in figures:
            lines.append(f"  {beside_optimum(figures)}")
        table = moments_table(figures)
        compared = "; distance of means in standard deviations of the reference" if self.reference is not None else ""
        lines += [f"  posterior mean (standard deviation){compared}", *table]
        if "local_sites" in figures:
            lines.append(f"  {left_out(int(figures['local_sites']))}")
        if (left := int(figures["quantities"]) - len(table) + 1) > 0:
            lines.append(f"  and {left:,} more")
        return "\n".join(lines)


def left_out(local_sites: int) -> str:
    """Say which sites have no moments.

    Example:
        >>> left_out(1)
        'without 1 site in a plate that subsamples, which belongs to other data in each draw'
    """
    several = local_sites > 1
    return (
        f"without {local_sites} site{'s' * several} in a plate that subsamples, which belong{'s' * (not several)} to "
        "other data in each draw"
    )


def settled_figures(verdict: Verdict) -> dict[str, float]:
    """Give by plain names what a stopping rule found."""
    figures = {"settled": float(verdict.stop), "steps": float(verdict.step)}
    if verdict.stop:
        figures |= {"averaged_from": float(verdict.start), "half_width": verdict.half_width}
    return figures


def when_settled(figures: Mapping[str, float]) -> str:
    """Say in words whether the parameters have settled.

    Example:
        >>> when_settled({"settled": 1.0, "steps": 900.0, "averaged_from": 401.0, "half_width": 0.0412})
        'settled: the average from step 401 to 900 is taken, known to ± 0.041 with 95 % confidence'
    """
    if not figures["settled"]:
        return f"not settled after {figures['steps']:,.0f} steps: a larger trainer.max_epochs goes on longer"
    window = f"{figures['averaged_from']:,.0f} to {figures['steps']:,.0f}"
    return (
        f"settled: the average from step {window} is taken, known to ± {figures['half_width']:.2g} with 95 % confidence"
    )


def beside_optimum(figures: Mapping[str, float]) -> str:
    """Say how far from the optimum of its family a guide is.

    Example:
        >>> beside_optimum({"optimum_mean_gap": 0.04, "optimum_sd_ratio_low": 0.98, "optimum_sd_ratio_high": 1.01})
        'optimum of the family: its means are missed by at most 0.040 sd, the ratios of the sd are 0.980 to 1.010'
    """
    gap, low, high = (figures[f"optimum_{name}"] for name in ("mean_gap", "sd_ratio_low", "sd_ratio_high"))
    return (
        f"optimum of the family: its means are missed by at most {gap:.3f} sd, the ratios of the sd are {low:.3f} to "
        f"{high:.3f}"
    )


def draw_curve(name: str, folder: Path) -> None:
    """Draw how the ELBO grew in a run, as ``elbo.png`` in its folder."""
    save_figure(elbo_figure({name: learning_curve(folder / "metrics.csv")}), folder / "elbo.png")


def learning_curve(metrics: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read steps, the ELBO after these, and its standard error from a run's ``metrics.csv``."""
    columns = ("step", "validation_elbo_spread", "validation_elbo")
    steps, error, elbo = (np.array(column) for column in read_metrics(metrics, *columns))
    return steps + 1, elbo, error


def draw_posterior(found: Quantities, reference: ReferenceMoments, path: Path) -> None:
    """Draw the guide's draws of each quantity, beside the reference's mean and standard deviation."""
    pairs = zip(reference.mean.tolist(), reference.sd.tolist(), strict=True)
    guide = {name: draws.numpy() for name, draws in found.items()}
    save_figure(posterior_figure(guide, dict(zip(reference.names, pairs, strict=True))), path)
