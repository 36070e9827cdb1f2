import gzip
import os
import re

import numpy as np
import pytest
import torch

from zoo.data import load_idx, read_idx
from zoo.data.idx import TEST_FILES, TRAIN_FILES

IMAGES = torch.arange(20 * 3 * 4, dtype=torch.uint8).reshape(20, 3, 4)
LABELS = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).repeat(5)


@pytest.fixture
def root(tmp_path, write_idx):
    """Twenty images of 3 × 4 to train on and twelve to test."""
    root = tmp_path / "shapes"
    for (images, labels), size in ((TRAIN_FILES, 20), (TEST_FILES, 12)):
        write_idx(root / images, IMAGES[:size])
        write_idx(root / labels, LABELS[:size])
    return root


def pack(path):
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 1, 3, 4)])
def test_written_file_is_read_back(tmp_path, write_idx, shape):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    write_idx(tmp_path / "values", values)
    assert torch.equal(read_idx(tmp_path / "values"), values)


def test_sizes_are_big_endian(tmp_path):
    (tmp_path / "values").write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258))
    assert read_idx(tmp_path / "values").shape == (258,)


def test_compressed_file_equals_the_plain_one(tmp_path, write_idx):
    write_idx(tmp_path / "values", IMAGES)
    pack(tmp_path / "values")
    assert torch.equal(read_idx(tmp_path / "values.gz"), IMAGES)


VALID = bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "does not start like an IDX file", id="nothing at all"),
        pytest.param(b"\x89PNG" + VALID, "does not start like an IDX file", id="another format"),
        pytest.param(b"\0\0\x0d\x01" + VALID[4:], "type 0x0d, not unsigned bytes", id="floating point"),
        pytest.param(VALID[:6], "ends within its header", id="cut in the header"),
        pytest.param(VALID[:-1], "specifies 3 values, but 2 follow", id="cut in the values"),
        pytest.param(VALID + b"\0", "specifies 3 values, but 4 follow", id="too long"),
        pytest.param(VALID[:4] + bytes(4), "has no values", id="empty set"),
        pytest.param(b"\0\0\x08\x00", "has no values", id="no dimensions"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_file_is_named_with_reason_and_cure(tmp_path, content, reason, packed):
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
def test_damaged_compression_is_named_with_a_cure(tmp_path, spoil):
    path = tmp_path / "values.gz"
    path.write_bytes(spoil(gzip.compress(VALID)))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*cannot be decompressed.*replace it"):
        read_idx(path)


def test_data_is_named_after_its_folder(root):
    data = load_idx(root)
    assert data.name == "shapes"
    assert data.image_shape == (1, 3, 4)
    assert data.classes == ("0", "1", "2", "3")
    assert (len(data.train), len(data.validation), len(data.load_test())) == (18, 2, 12)


def test_images_keep_their_labels(root):
    data = load_idx(root, validation=0)
    assert torch.equal(data.train.images[:, 0], IMAGES)
    assert data.train.labels.tolist() == LABELS.tolist()
    assert torch.equal(data.load_test().images[:, 0], IMAGES[:12])


def test_fill_value_is_the_border_median(root, write_idx):
    write_idx(root / TRAIN_FILES[0], torch.full_like(IMAGES, 51))
    assert load_idx(root).fill_value == (0.2,)


def test_compressed_and_plain_files_may_be_mixed(root):
    for name in (TRAIN_FILES[0], TEST_FILES[1]):
        pack(root / name)
    assert len(load_idx(root).load_test()) == 12


@pytest.mark.parametrize("name", TRAIN_FILES + TEST_FILES)
def test_missing_file_is_named_at_once(root, name):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"neither {name} nor {name}.gz; put .* there"):
        load_idx(root)


@pytest.mark.parametrize(("images", "labels"), [TRAIN_FILES, TEST_FILES])
def test_numbers_of_images_and_labels_must_match(root, write_idx, images, labels):
    write_idx(root / labels, LABELS[:7])
    with pytest.raises(ValueError, match=rf"{images} contains \d+ images, but .*{labels} 7 labels"):
        load_idx(root)


def test_images_in_place_of_labels_raise(root, write_idx):
    write_idx(root / TRAIN_FILES[1], IMAGES)
    with pytest.raises(ValueError, match=f"{TRAIN_FILES[1]} .*3 dimensions where 1 are expected"):
        load_idx(root)


def test_test_images_of_another_size_raise_at_once(root, write_idx):
    write_idx(root / TEST_FILES[0], IMAGES[:12].reshape(12, 4, 3))
    with pytest.raises(ValueError, match=r"4 × 3, those in .* 3 × 4; make them the same size"):
        load_idx(root)


def test_test_label_beyond_the_training_labels_raises(root, write_idx):
    write_idx(root / TEST_FILES[1], LABELS[:12] + 1)
    data = load_idx(root)
    with pytest.raises(ValueError, match=r"has label 4, but the labels in .* end at 3"):
        data.load_test()


def test_test_images_are_read_by_load_test_only(root):
    path = root / TEST_FILES[0]
    path.write_bytes(path.read_bytes()[:-1])
    data = load_idx(root)
    with pytest.raises(ValueError, match=TEST_FILES[0]):
        data.load_test()


def test_split_seed_determines_the_validation_set(root):
    first, again, other = (load_idx(root, 8, seed).validation.images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_holding_out_everything_raises(root):
    with pytest.raises(ValueError, match="cannot hold out 20 of 20"):
        load_idx(root, validation=20)


def idx_content(values):
    """Content of an IDX file for values of any type of whole numbers."""
    values = np.asarray(values)
    code = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C}[values.dtype.str[1:]]
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, code, values.ndim]) + sizes + values.astype(values.dtype.newbyteorder(">")).tobytes()


class TestWholeNumbers:
    @pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
    def test_signed_integers_are_read_back(self, tmp_path, dtype):
        values = np.array([[np.iinfo(dtype).min, -1, 0], [1, 77, np.iinfo(dtype).max]], dtype)
        (tmp_path / "values").write_bytes(idx_content(values))
        found = read_idx(tmp_path / "values")
        assert found.dtype == getattr(torch, dtype)
        assert found.tolist() == values.tolist()

    def test_file_truncated_within_a_value_is_damaged(self, tmp_path):
        (tmp_path / "values").write_bytes(idx_content(np.arange(3, dtype="int32"))[:-1])
        with pytest.raises(ValueError, match="specifies 3 values of 4 bytes, but 11 bytes follow"):
            read_idx(tmp_path / "values")

    def test_qmnist_labels_are_the_first_of_eight_columns(self, root):
        rows = np.zeros((20, 8), "int32")
        rows[:, 0], rows[:, 1:] = LABELS.numpy(), 4000
        (root / TRAIN_FILES[1]).write_bytes(idx_content(rows))
        assert load_idx(root, validation=0).train.labels.tolist() == LABELS.tolist()

    def test_labels_with_other_numbers_of_columns_raise(self, root):
        (root / TRAIN_FILES[1]).write_bytes(idx_content(np.eye(20, 10, dtype="uint8")))
        with pytest.raises(ValueError, match="2 dimensions where 1 are expected"):
            load_idx(root)

    def test_negative_labels_raise(self, root):
        (root / TRAIN_FILES[1]).write_bytes(idx_content(LABELS.numpy().astype("int8") - 1))
        with pytest.raises(ValueError, match="labels must be 0 or more, but one is -1"):
            load_idx(root)

    def test_gray_levels_may_have_any_integer_type(self, root):
        (root / TRAIN_FILES[0]).write_bytes(idx_content(IMAGES.numpy().astype("int16")))
        assert torch.equal(load_idx(root, validation=0).train.images[:, 0], IMAGES)

    @pytest.mark.parametrize("offset", [-1, 200])
    def test_gray_levels_out_of_range_raise(self, root, offset):
        (root / TRAIN_FILES[0]).write_bytes(idx_content(IMAGES.numpy().astype("int16") + offset))
        with pytest.raises(ValueError, match="gray levels must lie between 0 and 255, but range from"):
            load_idx(root)


class TestClasses:
    def test_labels_that_start_at_1_have_no_empty_class(self, root, write_idx):
        for part, size in ((TRAIN_FILES, 20), (TEST_FILES, 12)):
            write_idx(root / part[1], LABELS[:size] + 1)
        data = load_idx(root, validation=0)
        assert data.classes == ("1", "2", "3", "4")
        assert data.train.labels.tolist() == LABELS.tolist()
        assert data.load_test().labels.tolist() == LABELS[:12].tolist()

    def test_labels_with_gaps_keep_their_names(self, root, write_idx):
        skipping = torch.tensor([0, 3, 4, 9], dtype=torch.uint8)
        for part, size in ((TRAIN_FILES, 20), (TEST_FILES, 12)):
            write_idx(root / part[1], skipping[LABELS[:size].long()])
        data = load_idx(root, validation=0)
        assert data.classes == ("0", "3", "4", "9")
        assert data.load_test().labels.tolist() == LABELS[:12].tolist()

    def test_test_label_between_training_labels_raises(self, root, write_idx):
        write_idx(root / TRAIN_FILES[1], 2 * LABELS)
        data = load_idx(root)
        with pytest.raises(ValueError, match=r"has label 3, but the labels in .* do not include it"):
            data.load_test()


class TestNames:
    @pytest.mark.parametrize(
        ("train", "test", "images", "labels"),
        [
            pytest.param("emnist-letters-train", "emnist-letters-test", "idx3-ubyte", "idx1-ubyte", id="EMNIST"),
            pytest.param("qmnist-train", "qmnist-test", "idx3-ubyte", "idx2-int", id="QMNIST"),
            pytest.param("train", "t10k", "idx3-ubyte", "idx1-ubyte", id="MNIST"),
        ],
    )
    @pytest.mark.parametrize("separator", ["-", "."])
    def test_names_of_other_sets_are_found(self, root, train, test, images, labels, separator):
        for part, names in ((train, TRAIN_FILES), (test, TEST_FILES)):
            (root / names[0]).rename(root / f"{part}-images{separator}{images}")
            (root / names[1]).rename(root / f"{part}-labels{separator}{labels}")
        assert len(load_idx(root).load_test()) == 12

    def test_several_sets_in_one_folder_raise(self, root):
        for name in ("emnist-letters-train-images-idx3-ubyte", "emnist-digits-train-images-idx3-ubyte"):
            (root / name).write_bytes((root / TRAIN_FILES[0]).read_bytes())
        (root / TRAIN_FILES[0]).unlink()
        with pytest.raises(ValueError, match=r"several sets: emnist-digits.*, emnist-letters.*into its own folder"):
            load_idx(root)

    def test_names_of_mnist_take_precedence(self, root):
        (root / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"")
        assert len(load_idx(root).train) == 18

    def test_compressed_file_without_the_suffix_is_decompressed(self, root):
        path = root / TRAIN_FILES[0]
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert torch.equal(load_idx(root, validation=0).train.images[:, 0], IMAGES)

    def test_named_pipe_counts_as_missing(self, root):
        (root / TRAIN_FILES[0]).unlink()
        os.mkfifo(root / TRAIN_FILES[0])
        with pytest.raises(FileNotFoundError, match="contains neither train-images"):
            load_idx(root)
