"""Measure a trained model: ``python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt [render=gif]``."""

import sys
from pathlib import Path

from zoo.cli.arguments import EvaluateConfig, arguments, asks_for_help, script_help
from zoo.cli.errors import errors_as_sentences, relative


def main() -> None:
    """Evaluate one checkpoint, and leave figures and pictures in its run's folder."""
    with errors_as_sentences():
        if asks_for_help(sys.argv[1:]):
            print(script_help(EvaluateConfig, str(__doc__)))
            return
        asked = arguments(EvaluateConfig, sys.argv[1:])
        if asked.render not in (None, "gif"):
            raise ValueError(f"an episode can be rendered as gif, not as {asked.render}: render=gif")
        from zoo.cli.commands import evaluate  # after the check, for it takes long

        checkpoint = Path(asked.checkpoint).absolute()
        in_run = checkpoint.parent.name == "checkpoints"
        folder = checkpoint.parents[1] if in_run else checkpoint.with_suffix("")
        outcome = evaluate(checkpoint, folder, film=asked.render is not None, trust=asked.trust)
        print(outcome.summary)
        left = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
        print(f"all is in {relative(folder)}/: {left}")


if __name__ == "__main__":
    main()
