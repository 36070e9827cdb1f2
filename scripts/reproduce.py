"""Reproduce a table of results: ``python scripts/reproduce.py paper=ram [budget=smoke] [rows=[6]] [seeds=[1,2]]``."""

import sys

from zoo.cli import main

if __name__ == "__main__":
    main(["reproduce", *sys.argv[1:]])
