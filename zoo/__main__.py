"""Entry point of ``python -m zoo``; see ``zoo.cli.main``."""

from zoo.cli import main

if __name__ == "__main__":
    main()
