import json
import os
import zipfile

import pytest
import torch

from zoo.data._posteriordb import read_data, read_reference

MEAN = {"names": ["mu", "tau"], "mean_value": [1.0, 2.0], "mcse_mean": [0.1, 0.2]}
SQUARE = {"names": ["mu", "tau"], "mean_squared_value": [5.0, 13.0], "mcse_mean": [0.3, 0.4]}


@pytest.fixture
def write(tmp_path):
    """Write a file into the folder, and return the folder."""

    def to_file(name, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{name}.json").write_text(text)
        return tmp_path

    return to_file


def test_data_is_read_by_name_in_the_default_dtype(write):
    folder = write("data", {"N": 2, "y": [1, 2], "X": [[1, 2], [3, 4.5]]})
    x, y = read_data(folder, {"X": 2, "y": 1})
    assert x.tolist() == [[1, 2], [3, 4.5]]
    assert y.tolist() == [1, 2]
    assert {part.dtype for part in (x, y)} == {torch.get_default_dtype()}


@pytest.mark.parametrize(
    "content",
    [{"X": [[1], [2]], "y": [1]}, {"X": [1, 2], "y": [1, 2]}, {"X": [[1]], "y": 1}, {"X": [], "y": []}],
)
def test_arrays_must_have_their_dimensions_and_equal_rows(write, content):
    with pytest.raises(ValueError, match=r"the same number of rows: \{'X': 2, 'y': 1\}; got the shapes \{'X': "):
        read_data(write("data", content), {"X": 2, "y": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([1], "must contain a JSON object, got a list"),
        ({"z": 1}, "has no y; it has z"),
        ({"y": [1, "two"]}, "y in .* must be a number or a regular array"),
        ({"y": [[1, 2], [3]]}, "y in .* must be a number or a regular array"),
        ({"y": None}, "y in .* must be a number or a regular array"),
        ('{"y": [1, NaN]}', "y in .* must be finite"),
    ],
)
def test_damaged_data_raises(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_data(write("data", content), {"y": 1})


def test_missing_file_error_names_zoo_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.json; set ZOO_DATA"):
        read_data(tmp_path, {"y": 1})
    with pytest.raises(FileNotFoundError, match=r"mean\.json; set ZOO_DATA"):
        read_reference(tmp_path)


def test_standard_deviation_is_computed_from_both_moments(write):
    write("mean", MEAN)
    reference = read_reference(write("mean_squared", SQUARE))
    assert reference.names == ("mu", "tau")
    assert reference.sd.tolist() == [2, 3]
    assert reference.mean_std_error.tolist() == [0.1, 0.2]
    assert reference.mean_square_std_error.tolist() == [0.3, 0.4]


def test_moments_must_match_their_names_and_each_other(write):
    write("mean", MEAN)
    with pytest.raises(ValueError, match="must name the same quantities"):
        read_reference(write("mean_squared", {**SQUARE, "names": ["tau", "mu"]}))
    with pytest.raises(ValueError, match="2 names, 1 moments and 2 errors"):
        read_reference(write("mean_squared", {**SQUARE, "mean_squared_value": [5.0]}))


def test_moments_without_a_variance_raise(write):
    write("mean", MEAN)
    with pytest.raises(ValueError, match="imply a variance that is not positive"):
        read_reference(write("mean_squared", {**SQUARE, "mean_squared_value": [0.5, 13.0]}))


@pytest.fixture(params=["posterior_database", "."])
def clone(request, tmp_path):
    """A clone of posteriordb as its repository is laid out, or its folder of data alone."""
    database = tmp_path / "posteriordb" / request.param
    files = {
        "posteriors/kidiq-momhs.json": {"data_name": "kidiq", "reference_posterior_name": "kidiq-reference"},
        "posteriors/kidiq-unsolved.json": {"data_name": "kidiq", "reference_posterior_name": None},
        "reference_posteriors/summary_statistics/mean_value/mean_value/kidiq-reference.json": MEAN,
        "reference_posteriors/summary_statistics/mean_squared_value/mean_squared_value/kidiq-reference.json": SQUARE,
    }
    for name, content in files.items():
        (database / name).parent.mkdir(parents=True, exist_ok=True)
        (database / name).write_text(json.dumps(content))
    (database / "data" / "data").mkdir(parents=True)
    with zipfile.ZipFile(database / "data" / "data" / "kidiq.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kidiq.json", json.dumps({"y": [1, 2]}))
        archive.writestr("__MACOSX/._kidiq.json", b"\0\5")
    return tmp_path / "posteriordb"


class TestClone:
    def test_zipped_data_are_read(self, clone):
        (y,) = read_data(clone / "kidiq-momhs", {"y": 1})
        assert y.tolist() == [1, 2]

    def test_data_that_are_not_zipped_are_read(self, clone):
        (archive,) = clone.rglob("kidiq.json.zip")
        archive.with_name("kidiq.json").write_text(json.dumps({"y": [3, 4]}))
        archive.unlink()
        (y,) = read_data(clone / "kidiq-momhs", {"y": 1})
        assert y.tolist() == [3, 4]

    def test_reference_is_read_by_the_name_that_the_posterior_says(self, clone):
        assert read_reference(clone / "kidiq-momhs").sd.tolist() == [2, 3]

    def test_folder_of_the_posterior_comes_first(self, clone):
        (clone / "kidiq-momhs").mkdir()
        (clone / "kidiq-momhs" / "data.json").write_text(json.dumps({"y": [5]}))
        (y,) = read_data(clone / "kidiq-momhs", {"y": 1})
        assert y.tolist() == [5]

    def test_missing_reference_names_the_place_in_the_clone(self, clone):
        with pytest.raises(FileNotFoundError, match=r"and no .*kidiq-unsolved\.json in the clone of posteriordb"):
            read_reference(clone / "kidiq-unsolved")

    def test_missing_posterior_names_both_layouts(self, clone):
        with pytest.raises(FileNotFoundError, match=r"other.data\.json; set ZOO_DATA to .* clone .* or has a folder"):
            read_data(clone / "other", {"y": 1})

    def test_damaged_description_is_refused_in_a_sentence(self, clone):
        (description,) = clone.rglob("kidiq-momhs.json")
        description.write_text("[")
        with pytest.raises(ValueError, match=r"kidiq-momhs\.json cannot be read as JSON"):
            read_data(clone / "kidiq-momhs", {"y": 1})

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda content: b"", id="empty"),
            pytest.param(lambda content: content[:-30], id="cut off"),
            pytest.param(lambda content: content[:45] + b"\xff" * 8 + content[53:], id="garbled"),
            pytest.param(lambda content: b"version of a file kept elsewhere", id="pointer to a large file"),
        ],
    )
    def test_damaged_archive_is_refused_in_a_sentence(self, clone, spoil):
        (archive,) = clone.rglob("kidiq.json.zip")
        archive.write_bytes(spoil(archive.read_bytes()))
        with pytest.raises(ValueError, match=r"kidiq\.json\.zip cannot be read as JSON .*replace it"):
            read_data(clone / "kidiq-momhs", {"y": 1})

    def test_archive_of_several_files_is_refused_in_a_sentence(self, clone):
        (archive,) = clone.rglob("kidiq.json.zip")
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("other.json", "{}")
        with pytest.raises(ValueError, match="expected one file in the archive, got 2"):
            read_data(clone / "kidiq-momhs", {"y": 1})


def test_named_pipe_is_not_read_as_data(tmp_path):
    os.mkfifo(tmp_path / "data.json")
    with pytest.raises(FileNotFoundError, match=r"there is no .*data\.json"):
        read_data(tmp_path, {"y": 1})
