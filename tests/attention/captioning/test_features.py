import json
import logging

import pytest
import torch

from zoo.attention.captioning import _features
from zoo.attention.captioning._backbone import EfficientNetLite, normalize
from zoo.attention.captioning._features import cached_features, feature_extractor


@pytest.fixture
def images():
    return torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def backbone(monkeypatch, tmp_path):
    """Backbone with random weights in the place of the package's, and chunks of two images."""
    torch.manual_seed(0)
    backbone = EfficientNetLite().requires_grad_(False).eval()
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(_features, "load_backbone", lambda name: backbone)
    monkeypatch.setattr(_features, "weights_path", lambda name: weights)
    monkeypatch.setattr(_features, "CHUNK", 2)
    return backbone


@pytest.fixture
def computed(monkeypatch):
    """Number of images whose features were computed."""
    count = []
    extractor = feature_extractor

    def counting(backbone, stride):
        extract = extractor(backbone, stride)
        return lambda batch: (count.append(len(batch)), extract(batch))[1]

    monkeypatch.setattr(_features, "feature_extractor", counting)
    return lambda: sum(count)


def features(images, cache, stride=32, digest="digest"):
    return cached_features(images, digest, "efficientnet_lite0", stride, cache)


@pytest.mark.parametrize(("stride", "shape"), [(16, (4, 112)), (32, (1, 320))])
def test_features_are_those_of_the_backbone(images, backbone, tmp_path, stride, shape):
    found = features(images, tmp_path, stride)
    assert found.shape == (5, *shape)
    expected = backbone(normalize(images), stride).flatten(2).transpose(1, 2)
    torch.testing.assert_close(torch.tensor(found).float(), expected, atol=2e-3, rtol=2e-3)


def test_features_are_computed_once(images, backbone, computed, tmp_path):
    first = features(images, tmp_path)
    assert computed() == 5
    assert (features(images, tmp_path) == first).all()
    assert computed() == 5


@pytest.mark.parametrize("change", [{"digest": "other"}, {"stride": 16}])
def test_other_images_or_stride_have_a_file_of_their_own(images, backbone, computed, tmp_path, change):
    features(images, tmp_path)
    features(images, tmp_path, **change)
    assert computed() == 10


def test_other_weights_have_a_file_of_their_own(images, backbone, computed, tmp_path):
    features(images, tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"others")
    features(images, tmp_path)
    assert computed() == 10


@pytest.mark.usefixtures("without_type_checks")  # which read an image at random
def test_interrupted_computation_continues_after_the_last_whole_chunk(images, backbone, computed, tmp_path):
    class Interrupted(list):
        def __getitem__(self, i):
            if i == 3:
                raise KeyboardInterrupt
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt):
        features(Interrupted(images), tmp_path)
    assert computed() == 2
    whole = features(images, tmp_path)
    assert computed() == 5
    assert (whole == features(images, tmp_path, digest="again")).all()


def test_damaged_chunk_is_computed_again(images, backbone, computed, tmp_path):
    whole = features(images, tmp_path).copy()
    (file,) = tmp_path.glob("*/features.float16")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert (features(images, tmp_path) == whole).all()
    assert computed() == 5 + 2


@pytest.mark.parametrize("damage", ["truncated", "no checksums", "checksums are no JSON", "checksums are a list"])
def test_damaged_files_are_replaced(images, backbone, computed, tmp_path, damage):
    whole = features(images, tmp_path).copy()
    (file,) = tmp_path.glob("*/features.float16")
    checksums = file.with_name("checksums.json")
    match damage:
        case "truncated":
            file.write_bytes(file.read_bytes()[:100])
        case "no checksums":
            checksums.unlink()
        case "checksums are no JSON":
            checksums.write_text("{")
        case _:
            checksums.write_text(json.dumps([1]))
    assert (features(images, tmp_path) == whole).all()
    assert computed() == 10


def test_folder_that_cannot_be_written_is_named(images, backbone, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        features(images, tmp_path / "file" / "cache")


def test_computation_is_logged_with_its_folder(images, backbone, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        features(images, tmp_path)
    assert "Computing the features of 5 images, once: they are kept in" in caplog.text
