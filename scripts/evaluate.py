"""Evaluate a checkpoint: ``python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt [render=gif]``."""

import sys

from zoo.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
