import os
import socket

import pytest
import torch
from PIL import Image

from zoo.data import load_image_folder


def paint(folder, number, color=128, mode="L", size=(8, 6)):
    """Save `number` images of one color; the size is width × height, as PIL has it."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        Image.new(mode, size, color).save(folder / f"{i}.png")


def paint_shades(folder, grays):
    """Save one image of each gray level, so that every image is unique."""
    folder.mkdir(parents=True)
    for gray in grays:
        Image.new("L", (8, 6), gray).save(folder / f"{gray}.png")


@pytest.fixture
def flat(tmp_path):
    """Sixty dark cats and forty light dogs, in one folder for each class."""
    root = tmp_path / "pets"
    paint(root / "cat", 60, 20)
    paint(root / "dog", 40, 200)
    return root


@pytest.fixture
def divided(tmp_path):
    """Twenty images of each class to train on and three of each to test."""
    root = tmp_path / "pets"
    for part, number in (("train", 20), ("test", 3)):
        paint(root / part / "cat", number, 20)
        paint(root / part / "dog", number, 200)
    return root


def gray_of(part):
    """Gray level of each class, to check that images kept their labels."""
    return {label: part.images[part.labels == label].unique().tolist() for label in part.labels.unique().tolist()}


class TestFlat:
    def test_flat_folder_is_split_into_tenths_with_classes_in_proportion(self, flat):
        data = load_image_folder(flat)
        assert data.train.labels.bincount().tolist() == [48, 32]
        assert data.validation.labels.bincount().tolist() == [6, 4]
        assert data.load_test().labels.bincount().tolist() == [6, 4]

    def test_images_keep_their_labels(self, flat):
        data = load_image_folder(flat)
        for part in (data.train, data.validation, data.load_test()):
            assert gray_of(part) == {0: [20], 1: [200]}

    def test_splits_are_disjoint(self, tmp_path):
        paint_shades(tmp_path / "a", range(50))
        paint_shades(tmp_path / "b", range(50, 100))
        data = load_image_folder(tmp_path)
        parts = [part.images[:, 0, 0, 0].tolist() for part in (data.train, data.validation, data.load_test())]
        assert sorted(gray for part in parts for gray in part) == list(range(100))

    def test_data_and_classes_are_named_after_their_folders(self, flat):
        data = load_image_folder(flat)
        assert data.name == "pets"
        assert data.classes == ("cat", "dog")

    def test_validation_may_be_a_number(self, flat):
        data = load_image_folder(flat, validation=30)
        assert (len(data.train), len(data.validation), len(data.load_test())) == (60, 30, 10)

    def test_validation_may_be_zero(self, flat):
        data = load_image_folder(flat, validation=0)
        assert (len(data.train), data.validation) == (90, None)

    def test_too_large_validation_set_raises(self, flat):
        with pytest.raises(ValueError, match="cannot hold out 90 of 90"):
            load_image_folder(flat, validation=90)

    def test_too_few_images_for_a_test_set_raise(self, tmp_path):
        paint(tmp_path / "cat", 1)
        paint(tmp_path / "dog", 1)
        with pytest.raises(ValueError, match="cannot hold out 1 of 2"):
            load_image_folder(tmp_path)


class TestDivided:
    def test_existing_splits_are_kept(self, divided):
        data = load_image_folder(divided)
        assert (len(data.train), len(data.validation), len(data.load_test())) == (36, 4, 6)
        for part in (data.train, data.validation, data.load_test()):
            assert gray_of(part) == {0: [20], 1: [200]}

    def test_validation_folder_is_the_validation_set(self, divided):
        paint(divided / "validation" / "dog", 5, 200)
        data = load_image_folder(divided)
        assert (len(data.train), data.validation.labels.tolist()) == (40, [1] * 5)

    def test_validation_folder_and_number_raise(self, divided):
        paint(divided / "validation" / "dog", 5, 200)
        with pytest.raises(ValueError, match="validation is the validation set, but validation=4 more images"):
            load_image_folder(divided, validation=4)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_train_and_test_are_both_required(self, divided, part):
        (divided / part).rename(divided.parent / "elsewhere")
        with pytest.raises(ValueError, match=rf"there is no folder .*{part}; put images there, in a folder for each"):
            load_image_folder(divided)

    @pytest.mark.parametrize("part", ["test", "validation"])
    def test_class_without_training_images_raises_at_once(self, divided, part):
        paint(divided / part / "fish", 1)
        with pytest.raises(ValueError, match=r"fish is a class without training images; .*cat, dog"):
            load_image_folder(divided)

    def test_class_without_test_images_is_named_and_labels_are_kept(self, divided, caplog):
        for image in (divided / "test" / "cat").iterdir():
            image.unlink()
        (divided / "test" / "cat").rmdir()
        assert load_image_folder(divided).load_test().labels.tolist() == [1, 1, 1]
        assert "There are no test images of cat" in caplog.text

    def test_test_images_are_read_by_load_test_only(self, divided):
        (divided / "test" / "dog" / "0.png").write_text("not an image")
        data = load_image_folder(divided)
        with pytest.raises(ValueError, match=r"dog/0\.png cannot be read"):
            data.load_test()

    @pytest.mark.parametrize("name", ["val", "valid", "VAL", "Validation"])
    def test_validation_folder_may_have_alternative_names(self, divided, name, caplog):
        paint(divided / name / "dog", 5, 200)
        data = load_image_folder(divided)
        assert (len(data.train), data.validation.labels.tolist()) == (40, [1] * 5)
        assert not caplog.records

    def test_training_and_testing_are_alternative_names(self, divided):
        (divided / "train").rename(divided / "training")
        (divided / "test").rename(divided / "Testing")
        data = load_image_folder(divided)
        assert data.classes == ("cat", "dog")
        assert (len(data.train), len(data.validation), len(data.load_test())) == (36, 4, 6)

    def test_two_folders_for_one_split_raise(self, divided):
        paint(divided / "val" / "dog", 5, 200)
        paint(divided / "valid" / "dog", 5, 200)
        with pytest.raises(ValueError, match="contains both val and valid; merge the two, or rename one"):
            load_image_folder(divided)

    def test_val_is_the_test_set_without_test(self, divided, caplog):
        (divided / "test").rename(divided / "val")
        data = load_image_folder(divided)
        assert (len(data.train), len(data.validation), len(data.load_test())) == (36, 4, 6)
        assert gray_of(data.load_test()) == {0: [20], 1: [200]}
        (record,) = caplog.records
        assert "val is the test set, and the validation set is held out of train" in record.getMessage()

    def test_val_as_the_test_set_can_be_combined_with_a_validation_number(self, divided):
        (divided / "test").rename(divided / "val")
        assert len(load_image_folder(divided, validation=10).validation) == 10

    def test_test_folder_without_classes_beside_val_raises_with_a_cure(self, divided):
        (divided / "test").rename(divided / "val")
        paint(divided / "test", 3)
        with pytest.raises(ValueError, match=r"test contains no folders of classes.*move it out .* val becomes"):
            load_image_folder(divided)

    def test_unread_folders_and_images_are_named(self, divided, caplog):
        paint(divided / "unlabeled", 2)
        paint(divided / "train", 3)
        assert len(load_image_folder(divided).train) == 36
        first, second = (record.getMessage() for record in caplog.records)
        assert "train are in no folder of a class, and are not read" in first
        assert "only train and test is read, not unlabeled" in second.replace("test and train", "train and test")


class TestImages:
    def test_gray_images_have_one_channel(self, flat):
        assert load_image_folder(flat).image_shape == (1, 6, 8)

    def test_one_color_image_makes_all_rgb(self, divided):
        paint(divided / "train" / "cat", 1, (20, 20, 20), mode="RGB")
        data = load_image_folder(divided)
        assert data.image_shape == (3, 6, 8)
        assert data.load_test().images.shape == (6, 3, 6, 8)

    def test_mode_depends_on_the_training_images_only(self, divided):
        paint(divided / "test" / "cat", 3, (20, 20, 20), mode="RGB")
        data = load_image_folder(divided)
        assert data.load_test().images.shape == (6, 1, 6, 8)

    def test_images_of_one_size_are_not_resized(self, flat, caplog):
        load_image_folder(flat)
        assert not caplog.records

    def test_images_of_different_sizes_are_resized_to_the_median_with_a_warning(self, divided, caplog):
        paint(divided / "train" / "cat", 2, 20, size=(16, 3))
        data = load_image_folder(divided)
        assert data.image_shape == (1, 6, 8)
        (record,) = caplog.records
        assert record.name == "zoo.data"
        assert "resized to 6 × 8" in record.getMessage()

    def test_median_height_and_width_are_independent(self, divided):
        for kind, number, size in (("cat", 20, (9, 5)), ("dog", 20, (7, 15)), ("cat", 7, (3, 10)), ("dog", 7, (3, 10))):
            paint(divided / "train" / kind, number, 20, size=size)
        assert load_image_folder(divided).image_shape == (1, 10, 7)

    def test_given_size_is_used_without_a_warning(self, divided, caplog):
        paint(divided / "train" / "cat", 2, 20, size=(16, 3))
        data = load_image_folder(divided, size=(10, 12))
        assert data.image_shape == (1, 10, 12)
        assert data.load_test().images.shape[1:] == (1, 10, 12)
        assert not caplog.records

    def test_invalid_size_raises(self, flat):
        with pytest.raises(ValueError, match=r"at least 1, got \(0, 8\)"):
            load_image_folder(flat, size=(0, 8))

    def test_fill_value_is_the_border_median(self, tmp_path):
        paint(tmp_path / "red", 10, (255, 51, 0), mode="RGB")
        assert load_image_folder(tmp_path).fill_value == (1.0, 0.2, 0.0)

    def test_unreadable_image_is_named(self, flat):
        (flat / "cat" / "7.png").write_text("not an image")
        with pytest.raises(ValueError, match=r"cat/7\.png cannot be read as an image"):
            load_image_folder(flat, validation=0).load_test()

    def test_hidden_files_are_skipped(self, flat):
        (flat / "cat" / ".DS_Store").write_text("not an image")
        (flat / ".cache").mkdir()
        assert load_image_folder(flat).classes == ("cat", "dog")

    def test_split_seed_determines_the_splits(self, tmp_path):
        paint_shades(tmp_path / "cat", range(40))
        first, again, other = (load_image_folder(tmp_path, split_seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.load_test().images, again.load_test().images)
        assert torch.equal(first.validation.images, again.validation.images)
        assert not torch.equal(first.load_test().images, other.load_test().images)


class TestLayout:
    def test_missing_folder_raises(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
            load_image_folder(tmp_path / "nowhere")

    def test_images_without_class_folders_raise(self, tmp_path):
        paint(tmp_path, 3)
        with pytest.raises(ValueError, match="has no subfolders; put the images of each class"):
            load_image_folder(tmp_path)

    def test_empty_class_raises(self, flat):
        (flat / "fish").mkdir()
        with pytest.raises(ValueError, match="fish is empty; put the images of this class there or remove it"):
            load_image_folder(flat)

    def test_archive_raises_with_a_cure(self, tmp_path):
        (tmp_path / "pets.zip").write_bytes(b"PK")
        with pytest.raises(FileNotFoundError, match=r"pets\.zip is not a folder; unpack an archive"):
            load_image_folder(tmp_path / "pets.zip")

    def test_link_to_itself_raises(self, tmp_path):
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            load_image_folder(tmp_path / "loop")

    def test_nested_splits_raise_with_a_cure(self, divided):
        with pytest.raises(ValueError, match=r"pets is not a class, but contains test and train; use .*as the folder"):
            load_image_folder(divided.parent)

    def test_class_may_be_named_train(self, tmp_path):
        for name in ("bus", "plane", "train"):
            paint(tmp_path / name, 10)
        assert load_image_folder(tmp_path).classes == ("bus", "plane", "train")

    def test_train_and_test_without_classes_raise(self, tmp_path):
        for name in ("train", "test"):
            paint(tmp_path / name, 10)
        with pytest.raises(ValueError, match="train has no subfolders"):
            load_image_folder(tmp_path)

    def test_subfolders_of_classes_are_read_with_a_warning(self, flat, caplog):
        (flat / "cat" / "2020").mkdir()
        for i in range(30):
            (flat / "cat" / f"{i}.png").rename(flat / "cat" / "2020" / f"{i}.png")
        data = load_image_folder(flat)
        assert data.train.labels.bincount().tolist() == [48, 32]
        assert gray_of(data.train) == {0: [20], 1: [200]}
        (record,) = caplog.records
        assert "30 images of class cat are in subfolders such as cat/2020" in record.getMessage()

    def test_class_of_one_image_is_used_for_training(self, flat):
        paint(flat / "fish", 1, 99)
        assert load_image_folder(flat).train.labels.bincount().tolist()[2] == 1


class TestOtherFiles:
    @staticmethod
    def message(caplog):
        (record,) = caplog.records
        return record.getMessage()

    def test_other_files_are_skipped_with_a_count(self, flat, caplog):
        for name in ("Thumbs.db", "desktop.ini", "notes.txt", "more.TXT", "Makefile", ".DS_Store", "._0.png"):
            (flat / "cat" / name).write_bytes(b"no image")
        assert load_image_folder(flat).train.labels.bincount().tolist() == [48, 32]
        assert "Skipped 7 of the files in" in self.message(caplog)
        assert "2 × .txt" in self.message(caplog)
        assert "2 × hidden" in self.message(caplog)
        assert "1 × without suffix" in self.message(caplog)

    def test_folders_of_copies_are_skipped(self, flat, caplog):
        paint(flat / "cat" / "@eaDir", 5)
        paint(flat / "__MACOSX", 5)
        paint(flat / ".fish", 5)
        data = load_image_folder(flat)
        assert data.classes == ("cat", "dog")
        assert data.train.labels.bincount().tolist() == [48, 32]
        assert "hidden folder .fish" in self.message(caplog)

    def test_images_are_recognized_by_suffix_in_any_case_or_by_content(self, tmp_path, caplog):
        paint(tmp_path / "cat", 10, 20)
        for i in range(5):
            (tmp_path / "cat" / f"{i}.png").rename(tmp_path / "cat" / f"{i}.PNG")
        (tmp_path / "cat" / "9.png").rename(tmp_path / "cat" / "9")
        data = load_image_folder(tmp_path)
        assert (len(data.train), len(data.validation), len(data.load_test())) == (8, 1, 1)
        assert not caplog.records

    def test_damaged_image_is_named_and_not_skipped(self, flat):
        (flat / "cat" / "7.png").write_bytes(b"")
        with pytest.raises(ValueError, match=r"7\.png cannot be read as an image"):
            load_image_folder(flat, validation=0).load_test()

    def test_pipes_sockets_and_devices_are_skipped_with_a_count(self, flat, caplog, monkeypatch):
        os.mkfifo(flat / "cat" / "pipe.png")
        monkeypatch.chdir(flat / "cat")  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("socket.png")
            (flat / "cat" / "device.png").symlink_to("/dev/null")
            load_image_folder(flat)
        assert "3 × pipe, socket or device" in self.message(caplog)

    def test_links_to_a_parent_folder_are_not_followed(self, flat, caplog):
        (flat / "cat" / "all").symlink_to(flat)
        (flat / "cat" / "more").mkdir()
        (flat / "cat" / "more" / "again").symlink_to(flat / "cat")
        assert load_image_folder(flat).train.labels.bincount().tolist() == [48, 32]
        assert "2 × link to a folder above" in self.message(caplog)

    def test_links_to_other_images_and_folders_are_followed(self, flat, tmp_path):
        paint(tmp_path / "elsewhere", 20, 99)
        (flat / "fish").symlink_to(tmp_path / "elsewhere")
        assert load_image_folder(flat).classes == ("cat", "dog", "fish")

    def test_broken_link_is_named(self, flat):
        (flat / "cat" / "gone.png").symlink_to(flat / "nothing.png")
        with pytest.raises(FileNotFoundError, match=r"gone\.png is a broken link; restore"):
            load_image_folder(flat)

    def test_class_without_images_lists_its_other_files(self, flat):
        (flat / "fish").mkdir()
        for name in ("a.heic", "b.heic", "c.zip"):
            (flat / "fish" / name).write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"fish contains no images, only 2 × \.heic, 1 × \.zip; put the images"):
            load_image_folder(flat)

    def test_no_message_advises_to_remove_data(self, flat):
        paint(flat / "fish" / "small", 3)
        (flat / "fish" / "small" / "1.png").write_bytes(b"")
        with pytest.raises(ValueError, match="cannot be read as an image") as refused:
            load_image_folder(flat, validation=0, split_seed=1).load_test()
        assert "remove" not in str(refused.value)
