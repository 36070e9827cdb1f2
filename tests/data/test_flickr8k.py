import logging
import re

import pytest
from PIL import Image

from zoo.data import DatasetUnavailableError, load_flickr8k
from zoo.data.flickr8k import LISTS, TOKENS

SPLITS = {"train": ["a.jpg", "b.jpg"], "validation": ["c.jpg"], "test": ["d.jpg"]}
CAPTIONS = {
    "a.jpg": ("A dog runs .", "The dog is running ."),
    "b.jpg": ("Two dogs .", "A T-shirt ."),
    "c.jpg": ("A cat .", "One cat ."),
    "d.jpg": ("A bird .", "One zebra ."),
}


class Folder:
    """A folder laid out as Flickr8k, with four photographs."""

    def __init__(self, root):
        self.root, self.images = root, root / "images"
        self.images.mkdir()
        for gray, name in enumerate(CAPTIONS):
            Image.new("RGB", (6, 4), (60 * gray,) * 3).save(self.images / name)
        self.write(TOKENS, [f"{name}#{i}\t{text}" for name, texts in CAPTIONS.items() for i, text in enumerate(texts)])
        for split, names in SPLITS.items():
            self.write(LISTS[split], names)

    def write(self, file, lines):
        (self.root / file).write_text("".join(f"{line}\n" for line in lines))

    def add(self, file, *lines):
        with (self.root / file).open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def load(self):
        return load_flickr8k(self.root, size=4, min_count=1)


@pytest.fixture
def flickr8k(tmp_path):
    return Folder(tmp_path)


def test_splits_are_those_of_the_lists(flickr8k, caplog):
    data = flickr8k.load()
    sets = {"train": data.train, "validation": data.validation, "test": data.load_test()}
    assert {split: [path.name for path in found.images.paths] for split, found in sets.items()} == SPLITS
    assert data.train.captions[1] == (("two", "dogs"), ("a", "t", "shirt"))
    assert sets["test"].captions == ((("a", "bird"), ("one", "zebra")),)
    assert sets["test"].images[0].shape == (3, 4, 4)
    assert abs(int(sets["test"].images[0].max()) - 180) <= 3
    assert (data.name, data.image_size) == ("flickr8k", 4)
    assert not caplog.records


def test_folder_is_that_of_the_environment_unless_one_is_given(tmp_path, monkeypatch):
    (tmp_path / "flickr8k").mkdir()
    Folder(tmp_path / "flickr8k")
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    assert len(load_flickr8k(size=4, min_count=1).train) == 2
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError, match="elsewhere contains neither images nor Flicker8k_Dataset"):
        load_flickr8k(tmp_path / "elsewhere")


@pytest.mark.parametrize(("root", "named"), [(None, "ZOO_DATA is not set"), ("nowhere", "there is no nowhere")])
def test_missing_folder_of_the_environment_is_named(root, named, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    if root is not None:
        monkeypatch.setenv("ZOO_DATA", root)
    with pytest.raises(DatasetUnavailableError, match=rf"expected in \$ZOO_DATA/flickr8k, .* but {named}"):
        load_flickr8k()


def test_vocabulary_is_of_the_training_captions_alone(flickr8k):
    words = {"a", "dog", "runs", "the", "is", "running", "two", "dogs", "t", "shirt"}
    assert flickr8k.load().vocabulary.words == ("<eos>", "<unk>", *sorted(words))


def test_name_of_the_published_folder_is_supported(flickr8k):
    flickr8k.images.rename(flickr8k.root / "Flicker8k_Dataset")
    assert len(flickr8k.load().train) == 2


def test_captions_are_in_the_order_of_their_numbers(flickr8k):
    flickr8k.write(TOKENS, reversed((flickr8k.root / TOKENS).read_text().splitlines()))
    assert flickr8k.load().train.captions[0] == (("a", "dog", "runs"), ("the", "dog", "is", "running"))


def test_windows_line_ends_and_byte_order_mark_are_supported(flickr8k):
    for file in (TOKENS, *LISTS.values()):
        text = (flickr8k.root / file).read_text()
        (flickr8k.root / file).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert flickr8k.load().train.captions[0][0] == ("a", "dog", "runs")


def test_stray_lines_of_published_files_are_skipped_and_counted(flickr8k, caplog):
    flickr8k.add(TOKENS, "e.jpg.1#0\tPeople waiting .", "e.jpg.1#1\tPeople .")
    flickr8k.add(LISTS["test"], "", "stray", "unknown.jpg")
    with caplog.at_level(logging.WARNING):
        data = flickr8k.load()
    assert len(data.load_test()) == 1
    assert re.search(r"Skipped 2 captions in .*Flickr8k.token.txt without a photograph: e.jpg.1\.", caplog.text)
    assert re.search(r"Skipped 2 lines of .*testImages.txt with an unknown name: stray, unknown", caplog.text)


def test_caption_without_words_is_skipped_and_counted(flickr8k, caplog):
    flickr8k.add(TOKENS, "a.jpg#2\t . ")
    with caplog.at_level(logging.WARNING):
        assert len(flickr8k.load().train.captions[0]) == 2
    assert "Skipped 1 captions without a word" in caplog.text


def test_hidden_and_other_files_are_not_photographs(flickr8k):
    (flickr8k.images / "._a.jpg").write_bytes(b"")
    (flickr8k.images / "Thumbs.db").write_bytes(b"")
    assert len(flickr8k.load().train) == 2


FAULTS = {
    "photograph of a split is missing": (
        lambda folder: (folder.images / "d.jpg").unlink(),
        FileNotFoundError,
        r"there is no file .*d\.jpg, which has captions in .*Flickr8k\.token\.txt; restore it",
    ),
    "captions without a photograph": (
        lambda folder: folder.add(TOKENS, "e.jpg#0\tA cow ."),
        ValueError,
        r"has captions of e\.jpg, but .*images has no such photograph; restore it, or remove its captions",
    ),
    "photograph without a caption": (
        lambda folder: Image.new("RGB", (6, 4)).save(folder.images / "e.jpg"),
        ValueError,
        r"e\.jpg has no caption in .*Flickr8k\.token\.txt; add its captions or remove it",
    ),
    "captions of a photograph without words": (
        lambda folder: folder.write(
            TOKENS, [re.sub(r"(?<=^c.jpg#\d\t).*", ".", x) for x in (folder.root / TOKENS).read_text().splitlines()]
        ),
        ValueError,
        r"c\.jpg has no caption in .*Flickr8k\.token\.txt; add one, or remove the image from its split",
    ),
    "splits overlap": (
        lambda folder: folder.add(LISTS["test"], "a.jpg"),
        ValueError,
        r"a\.jpg is in both train and test; remove one",
    ),
    "name twice in a split": (
        lambda folder: folder.add(LISTS["train"], "a.jpg"),
        ValueError,
        r"a\.jpg is twice in train; remove one",
    ),
    "caption twice": (
        lambda folder: folder.add(TOKENS, "a.jpg#1\tAgain ."),
        ValueError,
        r"line 9 of .*Flickr8k\.token\.txt has caption 1 of a\.jpg a second time; remove one",
    ),
    "damaged line": (
        lambda folder: folder.add(TOKENS, "a.jpg A dog"),
        ValueError,
        r"line 9 of .* is 'a\.jpg A dog' instead of NAME\.jpg#NUMBER, a tab and a caption",
    ),
    "no text": (
        lambda folder: (folder.root / TOKENS).write_bytes(b"\xff\xd8\xff\xe0"),
        ValueError,
        r"Flickr8k\.token\.txt is not text .*; replace it with an intact copy",
    ),
    "empty list": (
        lambda folder: folder.write(LISTS["test"], []),
        ValueError,
        r"there are no images for test in .*; add the names of some",
    ),
    "list missing": (
        lambda folder: (folder.root / LISTS["validation"]).unlink(),
        FileNotFoundError,
        r"there is no file .*Flickr_8k\.devImages\.txt; put Flickr8k\.token\.txt, .* into the folder",
    ),
    "no folder of images": (
        lambda folder: folder.images.rename(folder.root / "photographs"),
        FileNotFoundError,
        r"contains neither images nor Flicker8k_Dataset; put the photographs there",
    ),
}


@pytest.mark.parametrize(("spoil", "kind", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_is_one_sentence_that_names_it(flickr8k, spoil, kind, message):
    spoil(flickr8k)
    with pytest.raises(kind, match=message) as error:
        flickr8k.load()
    assert "\n" not in str(error.value)
