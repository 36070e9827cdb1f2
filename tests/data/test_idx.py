import gzip
import re

import pytest
import torch

from zoo.data import load_idx, read_idx
from zoo.data.idx import TEST_FILES, TRAIN_FILES

IMAGES = torch.arange(20 * 3 * 4, dtype=torch.uint8).reshape(20, 3, 4)
LABELS = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).repeat(5)


@pytest.fixture
def root(tmp_path, write_idx):
    """Twenty pictures of 3 × 4 to train on and twelve to test."""
    root = tmp_path / "shapes"
    for (images, labels), size in ((TRAIN_FILES, 20), (TEST_FILES, 12)):
        write_idx(root / images, IMAGES[:size])
        write_idx(root / labels, LABELS[:size])
    return root


def pack(path):
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 1, 3, 4)])
def test_a_file_reads_back_as_it_was_written(tmp_path, write_idx, shape):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    write_idx(tmp_path / "values", values)
    assert torch.equal(read_idx(tmp_path / "values"), values)


def test_a_size_of_more_than_one_byte_is_read_with_the_highest_byte_first(tmp_path):
    (tmp_path / "values").write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258))
    assert read_idx(tmp_path / "values").shape == (258,)


def test_a_packed_file_reads_like_a_plain_one(tmp_path, write_idx):
    write_idx(tmp_path / "values", IMAGES)
    pack(tmp_path / "values")
    assert torch.equal(read_idx(tmp_path / "values.gz"), IMAGES)


VALID = bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "does not begin as an IDX file", id="nothing at all"),
        pytest.param(b"\x89PNG" + VALID, "does not begin as an IDX file", id="another format"),
        pytest.param(b"\0\0\x0d\x01" + VALID[4:], "type 0x0d, not unsigned bytes", id="floating point"),
        pytest.param(VALID[:6], "ends within its header", id="cut in the header"),
        pytest.param(VALID[:-1], "promises 3 values and 2 follow", id="cut in the values"),
        pytest.param(VALID + b"\0", "promises 3 values and 4 follow", id="too long"),
        pytest.param(VALID[:4] + bytes(4), "holds no values", id="empty set"),
        pytest.param(b"\0\0\x08\x00", "holds no values", id="no dimensions"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_is_named_with_the_reason_and_the_cure(tmp_path, content, reason, packed):
    path = tmp_path / ("values.gz" if packed else "values")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*{reason}.*replace it"):
        read_idx(path)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda packed: packed[:-12], id="cut off"),
        pytest.param(lambda packed: packed[:10] + b"\xff" * 9 + packed[19:], id="garbled"),
        pytest.param(lambda packed: VALID, id="not packed"),
    ],
)
def test_a_damaged_packing_is_named_with_the_cure(tmp_path, spoil):
    path = tmp_path / "values.gz"
    path.write_bytes(spoil(gzip.compress(VALID)))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*cannot be unpacked.*replace it"):
        read_idx(path)


def test_a_folder_becomes_data_of_the_same_name(root):
    data = load_idx(root)
    assert data.name == "shapes"
    assert data.image_shape == (1, 3, 4)
    assert data.classes == ("0", "1", "2", "3")
    assert (len(data.train), len(data.validation), len(data.load_test())) == (18, 2, 12)


def test_pictures_keep_their_labels(root):
    data = load_idx(root, validation=0)
    assert torch.equal(data.train.images[:, 0], IMAGES)
    assert data.train.labels.tolist() == LABELS.tolist()
    assert torch.equal(data.load_test().images[:, 0], IMAGES[:12])


def test_the_background_is_the_median_of_the_border(root, write_idx):
    write_idx(root / TRAIN_FILES[0], torch.full_like(IMAGES, 51))
    assert load_idx(root).background == (0.2,)


def test_packed_and_plain_files_may_be_mixed(root):
    for name in (TRAIN_FILES[0], TEST_FILES[1]):
        pack(root / name)
    assert len(load_idx(root).load_test()) == 12


@pytest.mark.parametrize("name", TRAIN_FILES + TEST_FILES)
def test_a_missing_file_is_named_at_once(root, name):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"neither {name} nor {name}.gz; put .* there"):
        load_idx(root)


@pytest.mark.parametrize(("images", "labels"), [TRAIN_FILES, TEST_FILES])
def test_as_many_labels_as_pictures_are_needed(root, write_idx, images, labels):
    write_idx(root / labels, LABELS[:7])
    with pytest.raises(ValueError, match=rf"{images} holds \d+ pictures, but .*{labels} 7 labels"):
        load_idx(root)


def test_pictures_in_place_of_labels_are_an_error(root, write_idx):
    write_idx(root / TRAIN_FILES[1], IMAGES)
    with pytest.raises(ValueError, match=f"{TRAIN_FILES[1]} .*3 dimensions where 1 are expected"):
        load_idx(root)


def test_test_pictures_of_another_size_are_an_error_at_once(root, write_idx):
    write_idx(root / TEST_FILES[0], IMAGES[:12].reshape(12, 4, 3))
    with pytest.raises(ValueError, match=r"4 × 3, those in .* 3 × 4; make them the same size"):
        load_idx(root)


def test_a_test_label_beyond_the_training_labels_is_an_error(root, write_idx):
    write_idx(root / TEST_FILES[1], LABELS[:12] + 1)
    data = load_idx(root)
    with pytest.raises(ValueError, match=r"has label 4, but the labels in .* end at 3"):
        data.load_test()


def test_test_pixels_are_not_read_before_they_are_asked_for(root):
    path = root / TEST_FILES[0]
    path.write_bytes(path.read_bytes()[:-1])
    data = load_idx(root)
    with pytest.raises(ValueError, match=TEST_FILES[0]):
        data.load_test()


def test_the_split_seed_chooses_the_validation_set(root):
    first, again, other = (load_idx(root, 8, seed).validation.images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_holding_out_everything_is_an_error(root):
    with pytest.raises(ValueError, match="cannot hold out 20 of 20"):
        load_idx(root, validation=20)
