"""Differences between two models of captioning, with paired intervals over the test images.

``python benchmarks/captioning_comparison.py first=[RUN,RUN] second=[RUN,RUN] [record=FILE.json]`` reads the
``test_captions.json`` of finished runs, one per seed, of two configurations on the same data. BLEU-4, CIDEr-D and the
negative log-likelihood per word are averaged over the runs of a configuration. The intervals are those of the bootstrap
over images: the same images are drawn for all runs, so that what makes an image difficult for every model cancels.
Koehn, "Statistical significance tests for machine translation evaluation", 2004. They do not contain the variation
between seeds.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from zoo.attention.captioning import CaptioningExperiment
from zoo.attention.captioning._ngrams import closest_length, ngram_matches
from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.cli._commands import make_experiment
from zoo.cli._composition import load_run_config
from zoo.training import run_environment, write_json

MAX_ORDER = 4
Draws = Int[np.ndarray, "resamples images"]


@dataclass
class Arguments:
    """Arguments of this program.

    Args:
        first: folders of runs.
        second: folders of the runs that they are compared with.
        num_resamples: number of bootstrap samples of the test images.
        seed: seed of these.
        record: file for the numbers; null for none.
    """

    first: list[str]
    second: list[str]
    num_resamples: int = 2000
    seed: int = 0
    record: str | None = None


def main() -> None:
    """Compare and print the table."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(Arguments, str(__doc__)))
            return
        arguments = parse_arguments(Arguments, sys.argv[1:])
        torch.set_num_threads(1)
        groups = [[_Run(Path(folder)) for folder in folders] for folders in (arguments.first, arguments.second)]
        if len({run.num_images for runs in groups for run in runs}) != 1:
            raise ValueError("the runs have different numbers of test images; compare runs on the same data")
        images = np.arange(groups[0][0].num_images)
        draws = np.random.default_rng(arguments.seed).choice(images, (arguments.num_resamples, len(images)))
        print("\n| metric | first | second | difference | 95 % interval |\n|" + " --- |" * 5)
        found = {}
        for metric in _METRICS:
            first, second = (_mean(runs, metric, images[None]).item() for runs in groups)
            differences = _mean(groups[0], metric, draws) - _mean(groups[1], metric, draws)
            low, high = np.quantile(differences, (0.025, 0.975))
            found[metric] = {"first": first, "second": second, "difference": [first - second, float(low), float(high)]}
            print(f"| {metric} | {first:.4f} | {second:.4f} | {first - second:+.4f} | {low:+.4f} to {high:+.4f} |")
        if arguments.record is not None:
            command = " ".join(["python", *sys.argv])
            write_json(Path(arguments.record), {"command": command, **asdict(arguments), **found} | run_environment())


class _Run:
    """Test captions of a run, with what each contributes to the metrics."""

    def __init__(self, folder: Path):
        rows: Sequence[Mapping[str, float | str]] = json.loads((folder / "test_captions.json").read_text())["captions"]
        experiment = make_experiment(load_run_config(folder))
        assert isinstance(experiment, CaptioningExperiment)
        references = experiment.data.load_test().captions
        self.num_images = len(rows)
        self._nll, self._words, self._cider = (
            np.array([row[name] for row in rows], dtype=float) for name in ("nll", "reference_words", "cider")
        )
        counts = []
        for row, captions in zip(rows, references, strict=True):
            tokens = str(row["caption"]).split()
            matched, total = ngram_matches(tokens, captions, MAX_ORDER)
            counts.append([*matched, *total, len(tokens), closest_length(len(tokens), captions)])
        self._counts = np.array(counts)

    def bleu4(self, draws: Draws) -> Float[np.ndarray, " resamples"]:
        """Return BLEU-4 of each resample."""
        sums = np.stack([self._counts[draw].sum(0) for draw in draws])
        matched, total, (length, closest) = sums[:, :4], sums[:, 4:8], sums[:, 8:].T
        with np.errstate(divide="ignore"):  # BLEU is 0 without a match
            log_precision = np.log(matched / total).mean(1)
        return np.exp(log_precision + np.minimum(0, 1 - closest / length))

    def cider(self, draws: Draws) -> Float[np.ndarray, " resamples"]:
        """Return CIDEr-D of each resample."""
        return self._cider[draws].mean(1)

    def nll(self, draws: Draws) -> Float[np.ndarray, " resamples"]:
        """Return the negative log-likelihood of each resample, in nats per word."""
        return self._nll[draws].sum(1) / self._words[draws].sum(1)


def _mean(runs: Sequence[_Run], metric: str, draws: Draws) -> Float[np.ndarray, " resamples"]:
    """Return the mean over runs of a metric of each resample."""
    values: list[np.ndarray] = [getattr(run, metric)(draws) for run in runs]
    return np.mean(values, axis=0)


_METRICS = ("bleu4", "cider", "nll")


if __name__ == "__main__":
    main()
