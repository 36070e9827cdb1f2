import subprocess
import sys

import pytest

import zoo


def test_packages_are_imported_on_access():
    program = "import zoo, sys; assert 'torch' not in sys.modules; print(zoo.gradients.Reinforce())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Reinforce(")


def test_packages_are_listed_in_dir():
    assert {"gradients", "inference", "__version__"} <= set(dir(zoo))


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'gradient'"):
        zoo.gradient  # noqa: B018
