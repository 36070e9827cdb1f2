"""Measure a trained model on its test set: ``python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt``."""

import sys
from pathlib import Path

from zoo.command_line import errors_as_sentences, relative
from zoo.config import EvaluateConfig, arguments
from zoo.runs import evaluate


def main() -> None:
    """Evaluate one checkpoint, and leave figures and pictures in its run's folder."""
    with errors_as_sentences():
        checkpoint = Path(arguments(EvaluateConfig, sys.argv[1:]).checkpoint).absolute()
        in_run = checkpoint.parent.name == "checkpoints"
        folder = checkpoint.parents[1] if in_run else checkpoint.with_suffix("")
        outcome = evaluate(checkpoint, folder)
        print(outcome.summary)
        left = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
        print(f"all is in {relative(folder)}/: {left}")


if __name__ == "__main__":
    main()
