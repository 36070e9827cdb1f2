"""The names that ``zoo.inference`` exports."""

import pytest

from zoo import inference


@pytest.mark.parametrize("name", inference.__all__)
def test_public_names_can_be_imported_from_package(name):
    assert getattr(inference, name).__name__ == name


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match=r"'zoo\.inference' has no attribute 'Guess'"):
        _ = inference.Guess
