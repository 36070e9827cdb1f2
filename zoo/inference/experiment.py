import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from zoo._constraints import COUNT, POSITIVE, Constraint, check_constraints, optional
from zoo.data._posteriordb import ReferenceMoments
from zoo.inference._mean_field import (
    check_optimum_available,
    compare_to_optimum,
    guide_distributions,
    mean_field_optimum,
)
from zoo.inference._posterior_moments import (
    Quantities,
    element_quantities,
    finite_estimate,
    moments,
    moments_table,
    named_quantities,
)
from zoo.inference.bbvi import ProgramInference
from zoo.inference.callbacks import StopOnConvergence
from zoo.inference.diagnostics import (
    ElboEstimate,
    ParetoK,
    PosteriorSamples,
    elbo_figure,
    fit_pareto_k,
    k_hat_unavailable_reason,
    point_mass_reason,
    posterior_figure,
)
from zoo.inference.programs._program import data_root
from zoo.inference.variational import RepeatedBatch
from zoo.plotting import save_figure
from zoo.training import Experiment, Loaders, read_checkpoint, read_metrics

REPORT_SEED = 1  # differs from the seed of validation
MAX_QUANTITIES = 20  # reported quantities
CONSTRAINTS = {
    "steps_per_epoch": COUNT,
    "num_eval_samples": Constraint("at least 2", lambda x: x >= 2),
    "convergence_tolerance": optional(POSITIVE),
}


class ProgramExperiment(Experiment):
    """Training and evaluation of the guide of a program.

    Args:
        program: see ``ProgramInference``.
        trust: see ``ProgramInference``.
        estimator: see ``ProgramInference``.
        steps_per_epoch: optimizer steps between two evaluations of the ELBO.
        num_eval_samples: samples of the guide for the final evaluation.
        convergence_tolerance: stop when the average of the parameters is known to this precision, in their own units,
            and use that average; see ``StopOnConvergence``. None to disable.
        compare_with_optimum: also compute the optimum of the guide's family, and report the distance to it.
        options: keyword arguments passed to ``ProgramInference``.

    Raises:
        ValueError: an option is invalid, or the optimum cannot be computed.
        FileNotFoundError: the program or its data are missing.

    Example:
        >>> experiment = ProgramExperiment("beta_bernoulli", trust=False, estimator=None)
        >>> experiment.name, experiment.module.elbo.num_particles
        ('beta_bernoulli', 10)
    """

    # The last checkpoint is used: selection by the ELBO of 500 samples near the optimum would overfit to these samples.
    monitor, monitor_mode = None, "max"

    def __init__(
        self,
        program: str,
        trust: bool,
        estimator: Mapping[str, Any] | None,
        steps_per_epoch: int = 100,
        num_eval_samples: int = 4000,
        convergence_tolerance: float | None = None,
        compare_with_optimum: bool = False,
        **options: Any,
    ):
        sizes = {"steps_per_epoch": steps_per_epoch, "num_eval_samples": num_eval_samples}
        check_constraints({**sizes, "convergence_tolerance": convergence_tolerance}, CONSTRAINTS)
        if convergence_tolerance is not None and options.get("schedule") != "constant":
            raise ValueError(
                "convergence_tolerance needs a constant learning rate, as anything converges with a decaying one: "
                "set model.schedule=constant, or remove model.convergence_tolerance"
            )
        self.stopping = (
            None if convergence_tolerance is None else StopOnConvergence(convergence_tolerance, steps_per_epoch)
        )
        self.name, self.trust, self.num_eval_samples = program, trust, num_eval_samples
        self.compare_with_optimum = compare_with_optimum
        self.module = ProgramInference(program=program, trust=trust, estimator=estimator, **options)
        self.program, root = self.module.program, data_root()
        self.data = self.program.load(root)
        if compare_with_optimum:
            check_optimum_available(program, self.program, self.data)
        self.reference = None if self.program.reference is None else self.program.reference(root)
        self.loaders = Loaders(
            train=lambda rank, ranks: RepeatedBatch(self.data, steps_per_epoch),
            validation=lambda rank, ranks: RepeatedBatch(self.data, 1),
        )

    def callbacks(self) -> list[pl.Callback]:
        """Callbacks of this kind of model alone."""
        return [] if self.stopping is None else [self.stopping]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Evaluate the guide on fresh samples, and save figures of the posterior and of the ELBO during training.

        Returns:
            The ELBO in nats, k-hat, moments of the first quantities, and the distances from the reference and from the
            optimum of the guide's family.
        """
        _save_elbo_figure(self.name, folder)
        return self.evaluate(checkpoint, folder)

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Evaluate the guide of a checkpoint on fresh samples, and save a figure of its posterior."""
        module = ProgramInference.load(checkpoint, trust=self.trust)
        torch.manual_seed(REPORT_SEED)
        samples = module.sample_posterior(self.data, self.num_eval_samples, progress=True)
        elbo = finite_estimate(samples)
        metrics = {"elbo": elbo.value, "elbo_std_error": elbo.standard_error, "num_samples": float(elbo.num_samples)}
        if samples.num_constant_elements:
            metrics["num_constant_elements"] = float(samples.num_constant_elements)
        elif k_hat_unavailable_reason(samples) is None and math.isfinite(
            (k := fit_pareto_k(samples.log_weights)).value
        ):
            metrics |= {"k_hat": k.value, "k_hat_std_error": k.standard_error}
        if self.compare_with_optimum:
            optimum = mean_field_optimum(self.program, self.data)
            metrics |= compare_to_optimum(optimum, guide_distributions(module.guide, self.data))
        if self.stopping is not None:
            self.stopping.load_state_dict(read_checkpoint(checkpoint)["callbacks"][self.stopping.state_key])
            status = self.stopping.status
            metrics |= {"converged": float(status.stop), "steps": float(status.step)}
            if status.stop:
                metrics |= {"average_start": float(status.start), "half_width": status.half_width}
        found, count = self._quantities(samples)
        if self.reference is not None:
            _save_posterior_figure(found, self.reference, folder / "posterior.png")
        if samples.local:
            metrics["num_local_sites"] = float(len(samples.local))
        return {**metrics, "num_quantities": float(count), **moments(found, self.reference)}

    def _quantities(self, samples: PosteriorSamples) -> tuple[Quantities, int]:
        """Return the quantities of the reference, or else the first elements of the sites, and their total number."""
        if self.reference is None or self.program.quantities is None:
            return element_quantities(samples.sites, MAX_QUANTITIES, samples.num_categories)
        found = named_quantities(samples.sites, self.program.quantities, self.reference.names)
        return found, len(found)

    def describe(self, metrics: Mapping[str, float]) -> str:
        """Return a summary of ELBO, k-hat and posterior moments."""
        elbo = ElboEstimate(metrics["elbo"], metrics["elbo_std_error"], int(metrics["num_samples"]))
        lines = [f"{self.name}: {self.program.description}", f"  {elbo}"]
        if "k_hat" in metrics:
            lines.append(f"  {ParetoK(metrics['k_hat'], metrics['k_hat_std_error'], elbo.num_samples)}")
        if "num_constant_elements" in metrics:
            lines.append(f"  {point_mass_reason(int(metrics['num_constant_elements']))}")
        if "converged" in metrics:
            lines.append(f"  {_describe_convergence(metrics)}")
        if "optimum_mean_gap" in metrics:
            gap, low, high = (metrics[f"optimum_{name}"] for name in ("mean_gap", "sd_ratio_low", "sd_ratio_high"))
            gaps = f"means differ by at most {gap:.3f} sd, sd ratios are {low:.3f} to {high:.3f}"
            lines.append(f"  optimum of the family: {gaps}")
        table = moments_table(metrics)
        compared = "; distance of means in standard deviations of the reference" if self.reference is not None else ""
        lines += [f"  posterior mean (standard deviation){compared}", *table]
        if "num_local_sites" in metrics:
            several = metrics["num_local_sites"] > 1
            sites = f"{metrics['num_local_sites']:.0f} site{'s' * several} in a subsampled plate"
            lines.append(f"  without {sites}, which belong{'s' * (not several)} to other data in each sample")
        if (left := int(metrics["num_quantities"]) - len(table) + 1) > 0:
            lines.append(f"  and {left:,} more")
        return "\n".join(lines)


def _describe_convergence(metrics: Mapping[str, float]) -> str:
    """Return whether the parameters have converged."""
    if not metrics["converged"]:
        return f"not converged after {metrics['steps']:,.0f} steps: increase trainer.max_epochs"
    window = f"{metrics['average_start']:,.0f} to {metrics['steps']:,.0f}"
    return f"converged: average of steps {window}, known to ± {metrics['half_width']:.2g} with 95 % confidence"


def _save_elbo_figure(name: str, folder: Path) -> None:
    save_figure(elbo_figure({name: _read_elbo_curve(folder / "metrics.csv")}), folder / "elbo.png")


def _read_elbo_curve(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, ELBO and its standard error from a run's ``metrics.csv``."""
    columns = ("step", "validation_elbo_std_error", "validation_elbo")
    steps, error, elbo = (np.array(column) for column in read_metrics(path, *columns))
    return steps + 1, elbo, error


def _save_posterior_figure(found: Quantities, reference: ReferenceMoments, path: Path) -> None:
    """Save a figure of the guide's samples of each quantity beside the reference's mean and standard deviation."""
    pairs = zip(reference.mean.tolist(), reference.sd.tolist(), strict=True)
    guide = {name: draws.numpy() for name, draws in found.items()}
    save_figure(posterior_figure(guide, dict(zip(reference.names, pairs, strict=True))), path)
