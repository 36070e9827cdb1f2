"""Variance of the gradients of captioning, by baseline, at equal numbers of samples.

``python benchmarks/captioning_variance.py checkpoint=RUN/checkpoints/best.ckpt [record=FILE.json]`` measures, for a
trained model with hard attention on batches of training captions, the variance of

- the gradient of the cells: that of the policy loss of cross-entropy training, with respect to the query and the keys,
  which nothing else trains in a step with sampled cells;
- the gradient of sequence training, with respect to all parameters.

Batch and weights are fixed; only the samples differ. Moving average and network are fitted to other batches first.
Between the estimators of a part only the baseline differs, and with it the variance, as all are unbiased.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention.captioning import CaptionBatch, Captioner, captioning_objective, word_mask
from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.cli._commands import make_experiment
from zoo.gradients import gradient_moments
from zoo.training import read_checkpoint, run_environment, write_json

CELL_BASELINES = ("none", "moving_average", "learned", "leave_one_out")
SEQUENCE_BASELINES = ("none", "greedy", "leave_one_out")


@dataclass
class Arguments:
    """Arguments of this program.

    Args:
        checkpoint: checkpoint of a model with hard attention, trained by cross-entropy.
        num_samples: samples of the cells of a caption, and captions of an image, in each gradient.
        num_gradients: number of gradients whose variance is measured, on each batch.
        num_batches: number of batches.
        batch_size: captions in a batch; in sequence training images.
        fitting_steps: steps in which moving average and network are fitted.
        seed: seed of batches and samples.
        record: file for the numbers; null for none.
    """

    checkpoint: str
    num_samples: int = 5
    num_gradients: int = 40
    num_batches: int = 4
    batch_size: int = 32
    fitting_steps: int = 100
    seed: int = 0
    record: str | None = None


def main() -> None:
    """Measure and print the table."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(Arguments, str(__doc__)))
            return
        arguments = parse_arguments(Arguments, sys.argv[1:])
        torch.set_num_threads(1)
        print("\n| gradient | baseline | variance | ratio to none |\n|" + " --- |" * 4)
        found = [
            *_measure("cells", CELL_BASELINES, arguments, _cell_loss, {"model.objective": "cross_entropy"}),
            *_measure("sequence training", SEQUENCE_BASELINES, arguments, _sequence_loss, {"model.objective": "scst"}),
        ]
        if arguments.record is not None:
            command = " ".join(["python", *sys.argv])
            write_json(
                Path(arguments.record), {"command": command, **asdict(arguments), "found": found} | run_environment()
            )


def _measure(
    name: str,
    baselines: Sequence[str],
    arguments: Arguments,
    loss: Callable[[Captioner, CaptionBatch], tuple[Tensor, Tensor]],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the variance of a gradient with each baseline, the mean over the batches."""
    rows: list[dict[str, Any]] = []
    for baseline in baselines:
        model, batches = _load(arguments, {**settings, "estimator.baseline": baseline})
        torch.manual_seed(arguments.seed)
        _fit(model, batches[arguments.num_batches :], loss)
        decoder = model.decoder
        attention = [*decoder.to_query.parameters(), *decoder.to_key.parameters(), decoder.key_position]
        trained = attention if name == "cells" else [p for p in decoder.parameters() if p.requires_grad]
        variances = [
            _variance(partial(loss, model, batch), trained, model.reinforce, arguments)
            for batch in batches[: arguments.num_batches]
        ]
        variance = sum(variances) / len(variances)
        ratio = variance / rows[0]["variance"] if rows else 1.0
        rows.append({"gradient": name, "baseline": baseline, "variance": variance, "by_batch": variances})
        print(f"| {name} | {baseline} | {variance:.3g} | {ratio:.3f} |", flush=True)
    return rows


def _variance(
    loss: Callable[[], tuple[Tensor, Tensor]], parameters: Sequence[Tensor], reinforce: nn.Module, arguments: Arguments
) -> float:
    torch.manual_seed(arguments.seed)
    moments = gradient_moments(lambda: loss()[0], parameters, arguments.num_gradients, modules=[reinforce])
    return moments.total.variance.item()


def _load(arguments: Arguments, settings: Mapping[str, Any]) -> tuple[Captioner, list[CaptionBatch]]:
    """Return the model of the checkpoint with other settings, without dropout, and training batches."""
    path = Path(arguments.checkpoint)
    config = copy.deepcopy(read_checkpoint(path)["config"])
    config["model"] |= {"num_samples": arguments.num_samples, "expected_fraction": 0.0}
    config["trainer"]["batch_size"] = arguments.batch_size
    for key, value in settings.items():
        group, option = key.split(".")
        config[group][option] = value
    experiment = make_experiment(config)
    model = experiment.module
    assert isinstance(model, Captioner)
    weights = Captioner.load(path).state_dict()
    model.load_state_dict({name: x for name, x in weights.items() if not name.startswith("reinforce.")}, strict=False)
    loader = iter(experiment.loaders.train(0, 1))
    number = arguments.num_batches + arguments.fitting_steps
    return model.eval(), [CaptionBatch(*batch) for batch, _ in zip(loader, range(number), strict=False)]


def _fit(model: Captioner, batches: Sequence[CaptionBatch], loss: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Fit the baseline, and nothing else."""
    parameters = list(model.reinforce.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.03) if parameters else None
    model.reinforce.train()
    for batch in batches if parameters or model.reinforce.baseline.updates_buffers else ():
        baseline_loss = loss(model, batch)[1]
        model.reinforce.end_step()
        if optimizer is not None:
            optimizer.zero_grad()
            baseline_loss.backward(inputs=parameters)
            optimizer.step()
    model.reinforce.eval()


def _cell_loss(model: Captioner, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
    """Return the policy loss of sampled cells, and the loss of the baseline."""
    noise = torch.rand(*batch.words.shape[:2], model.hparams["num_samples"])
    decoded = model.decoder.decode(model.annotate(batch.inputs), batch.words, noise)
    objective = captioning_objective(decoded, word_mask(batch.words), model.reinforce)
    return objective.policy_loss, objective.baseline_loss


def _sequence_loss(model: Captioner, batch: CaptionBatch) -> tuple[Tensor, Tensor]:
    """Return the policy loss of sampled captions, and the loss of the baseline."""
    objective = model.objective(batch)
    return objective.policy_loss, objective.baseline_loss


if __name__ == "__main__":
    main()
