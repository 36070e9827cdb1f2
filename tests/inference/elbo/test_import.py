import subprocess
import sys

PROGRAM = """
import sys
import pyro.infer, torch
before = set(sys.modules)
from zoo.inference.elbo import BlackBoxELBO
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(added - set(sys.stdlib_module_names)))
"""


def test_importing_black_box_elbo_loads_only_torch_pyro_numpy_and_jaxtyping():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) <= {"jaxtyping", "numpy", "typing_extensions", "zoo"}, found.stdout
