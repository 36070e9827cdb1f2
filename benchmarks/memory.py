"""Peak resident memory of a training: ``python benchmarks/memory.py [arguments of scripts/train.py]``."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss


def peak_memory(arguments: list[str]) -> float:
    """Return the peak resident memory of a training in gigabytes; the run folder is temporary."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, TRAIN, *arguments, f"hydra.run.dir={folder}"], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT / 1e9


if __name__ == "__main__":
    peak = peak_memory(sys.argv[1:] or ["model=ram", "trainer.max_epochs=1"])
    print(f"peak resident memory: {peak:.2f} GB")
