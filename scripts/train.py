"""Train a model of the zoo: ``python scripts/train.py model=ram``; without arguments, list the models."""

import sys

from zoo.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
