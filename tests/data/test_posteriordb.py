import json

import pytest
import torch

from zoo.data.posteriordb import read_data, read_reference

MEAN = {"names": ["mu", "tau"], "mean_value": [1.0, 2.0], "mcse_mean": [0.1, 0.2]}
SQUARE = {"names": ["mu", "tau"], "mean_squared_value": [5.0, 13.0], "mcse_mean": [0.3, 0.4]}


@pytest.fixture
def write(tmp_path):
    """Write a file of the folder, and give the folder."""

    def to_file(name, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{name}.json").write_text(text)
        return tmp_path

    return to_file


def test_data_are_read_by_name_in_the_default_type(write):
    folder = write("data", {"N": 2, "y": [1, 2], "X": [[1, 2], [3, 4.5]]})
    x, y = read_data(folder, {"X": 2, "y": 1})
    assert x.tolist() == [[1, 2], [3, 4.5]]
    assert y.tolist() == [1, 2]
    assert {part.dtype for part in (x, y)} == {torch.get_default_dtype()}


@pytest.mark.parametrize(
    "content",
    [{"X": [[1], [2]], "y": [1]}, {"X": [1, 2], "y": [1, 2]}, {"X": [[1]], "y": 1}, {"X": [], "y": []}],
)
def test_arrays_must_have_their_dimensions_and_equally_many_rows(write, content):
    with pytest.raises(ValueError, match=r"equally many rows: \{'X': 2, 'y': 1\}; got the shapes \{'X': "):
        read_data(write("data", content), {"X": 2, "y": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([1], "must hold an object with names, got a list"),
        ({"z": 1}, "holds no y; it holds z"),
        ({"y": [1, "two"]}, "y in .* must be a number or a regular array"),
        ({"y": [[1, 2], [3]]}, "y in .* must be a number or a regular array"),
        ({"y": None}, "y in .* must be a number or a regular array"),
        ('{"y": [1, NaN]}', "y in .* must be finite"),
    ],
)
def test_damaged_data_are_refused_in_a_sentence(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_data(write("data", content), {"y": 1})


def test_a_missing_file_says_where_it_belongs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.json; set ZOO_DATA"):
        read_data(tmp_path, {"y": 1})
    with pytest.raises(FileNotFoundError, match=r"mean\.json; set ZOO_DATA"):
        read_reference(tmp_path)


def test_the_standard_deviation_follows_from_both_moments(write):
    write("mean", MEAN)
    reference = read_reference(write("mean_squared", SQUARE))
    assert reference.names == ("mu", "tau")
    assert reference.sd.tolist() == [2, 3]
    assert reference.mean_error.tolist() == [0.1, 0.2]
    assert reference.mean_square_error.tolist() == [0.3, 0.4]


def test_moments_must_fit_their_names_and_each_other(write):
    write("mean", MEAN)
    with pytest.raises(ValueError, match="must name the same quantities"):
        read_reference(write("mean_squared", {**SQUARE, "names": ["tau", "mu"]}))
    with pytest.raises(ValueError, match="2 names, 1 moments and 2 errors"):
        read_reference(write("mean_squared", {**SQUARE, "mean_squared_value": [5.0]}))


def test_moments_without_a_variance_are_damaged(write):
    write("mean", MEAN)
    with pytest.raises(ValueError, match="give a quantity no variance"):
        read_reference(write("mean_squared", {**SQUARE, "mean_squared_value": [0.5, 13.0]}))
