import json
import logging

import pytest
from PIL import Image

from zoo.data import load_karpathy


def entry(name, split, *captions, **others):
    sentences = [{"tokens": caption.split(), "raw": caption.upper()} for caption in captions]
    return {"filename": name, "split": split, "sentences": sentences, **others}


FLICKR = [
    entry("a.jpg", "train", "a dog runs", "the dog"),
    entry("b.jpg", "val", "a cat"),
    entry("c.jpg", "test", "a tshirt"),
]
COCO = [
    entry("a.jpg", "train", "a dog", filepath="train2014"),
    entry("a.jpg", "restval", "a cow", filepath="val2014"),
    entry("b.jpg", "val", "a cat", filepath="val2014"),
    entry("c.jpg", "test", "a bird", filepath="val2014"),
]


@pytest.fixture
def save(tmp_path):
    """Writes the file, and each image below a folder."""

    def save(entries, folder="images", missing=()):
        for found in entries:
            path = tmp_path / folder / found.get("filepath", "") / found["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if found["filename"] not in missing:
                Image.new("RGB", (6, 4)).save(path)
        (tmp_path / "dataset.json").write_text(json.dumps({"images": entries, "dataset": "any"}))
        return tmp_path

    return save


def names(data):
    return ["/".join(path.parts[-2:]) for path in data.images.paths]


@pytest.mark.parametrize("folder", ["images", "Flicker8k_Dataset", "flickr30k-images", "flickr30k_images", ""])
def test_flickr_is_read_from_every_usual_folder(save, folder):
    root = save(FLICKR, folder)
    data = load_karpathy(root, size=4, min_count=1)
    assert [path.relative_to(root / folder).name for path in data.train.images.paths] == ["a.jpg"]
    assert data.train.captions == ((("a", "dog", "runs"), ("the", "dog")),)
    assert data.validation.captions == ((("a", "cat"),),)
    assert data.load_test().captions == ((("a", "tshirt"),),)
    assert data.vocabulary.words == ("<eos>", "<unk>", "a", "dog", "runs", "the")
    assert data.train.images[0].shape == (3, 4, 4)
    assert (data.name, data.image_size) == (root.name, 4)


@pytest.mark.parametrize("folder", ["images", ""])
def test_restval_of_coco_is_for_training(save, folder):
    data = load_karpathy(save(COCO, folder), min_count=1)
    assert names(data.train) == ["train2014/a.jpg", "val2014/a.jpg"]
    assert names(data.validation) == ["val2014/b.jpg"]
    assert names(data.load_test()) == ["val2014/c.jpg"]


def test_restval_can_be_left_out(save):
    data = load_karpathy(save(COCO), min_count=1, restval=False)
    assert names(data.train) == ["train2014/a.jpg"]
    assert "cow" not in data.vocabulary.words


def test_raw_text_is_split_where_there_are_no_tokens(save):
    raw = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A red T-shirt."}]}
    assert load_karpathy(save([raw, *FLICKR[1:]]), min_count=1).train.captions == ((("a", "red", "t", "shirt"),),)


def test_file_may_have_another_name(save):
    root = save(FLICKR)
    (root / "dataset.json").rename(root / "dataset_flickr8k.json")
    assert len(load_karpathy(root, json="dataset_flickr8k.json", min_count=1).train) == 1


def test_caption_without_tokens_is_skipped_and_counted(save, caplog):
    with caplog.at_level(logging.WARNING):
        data = load_karpathy(save([entry("a.jpg", "train", "a dog", ""), *FLICKR[1:]]), min_count=1)
    assert data.train.captions == ((("a", "dog"),),)
    assert "Skipped 1 captions without a word" in caplog.text


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([*FLICKR, entry("a.jpg", "test", "a dog")], r"a\.jpg is in both train and test; remove one"),
        ([*FLICKR, FLICKR[0]], r"a\.jpg is twice in train; remove one"),
        ([entry("a.jpg", "train"), *FLICKR[1:]], r"a\.jpg has no caption in .*dataset\.json; add one"),
        ([*FLICKR[1:]], r"there are no images for train"),
        ([entry("a.jpg", "dev", "a dog")], r"image 0 in .*, a\.jpg, is in the split 'dev'; it must be one of train, "),
        ([{**FLICKR[0], "split": ["train"]}], r"a\.jpg, is in the split \['train'\]"),
        ([{**FLICKR[0], "sentences": None}], r'a\.jpg, has no list "sentences"; replace the file'),
        ([{**FLICKR[0], "sentences": ["a dog"]}], r'a\.jpg, has a sentence with neither "tokens" nor "raw" text'),
        ([{**FLICKR[0], "sentences": [{"tokens": [1]}]}], r'a\.jpg, has a sentence with neither "tokens" nor "raw"'),
    ],
)
def test_fault_of_an_image_is_one_sentence_that_names_it(save, entries, message):
    with pytest.raises(ValueError, match=message):
        load_karpathy(save(entries), min_count=1)


def test_missing_image_is_named(save):
    with pytest.raises(
        FileNotFoundError, match=r"there is no file .*b\.jpg, which has captions in .*dataset\.json; restore"
    ):
        load_karpathy(save(FLICKR, missing=["b.jpg"]), min_count=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [', r"dataset\.json is not JSON \(Expecting value: line 1 column 13.*\); replace it"),
        (b"", r"dataset\.json is not JSON"),
        (b"\xff\xd8\xff", r"dataset\.json is not JSON"),
        (b"[" * 100_000, r"dataset\.json is not JSON"),
        (b"[1, 2]", r'dataset\.json has no list "images"; use the dataset\.json that Karpathy published'),
        (b'{"images": {}}', r'dataset\.json has no list "images"'),
        (b'{"images": [1]}', r'image 0 in .*dataset\.json has no "filename"'),
        (b'{"images": [{"filename": ""}]}', r'image 0 in .*dataset\.json has no "filename"'),
    ],
)
def test_damaged_file_is_one_sentence_that_names_it(tmp_path, content, message):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_karpathy(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_file_is_named_with_a_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*dataset\.json; put Karpathy's file there, or set"):
        load_karpathy(tmp_path)
