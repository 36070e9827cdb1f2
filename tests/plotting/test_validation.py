import numpy as np
import pytest
import torch

from zoo.plotting._validation import ArrayValidator


def test_letter_is_one_size_in_all_arrays():
    validator = ArrayValidator()
    validator.real("centers", np.zeros((8, 6, 2)), "N T 2")
    validator.real("probabilities", np.zeros((8, 6, 10)), "N T K")
    with pytest.raises(ValueError, match=r"^labels must have the shape \(N=8, T=6\), got \(8, 5\)$"):
        validator.real("labels", np.zeros((8, 5)), "N T")


def test_letter_is_one_size_within_an_array():
    with pytest.raises(ValueError, match=r"^patch must have the shape \(g, g\), got \(3, 4\)$"):
        ArrayValidator().real("patch", np.zeros((3, 4)), "g g")


def test_invalid_array_sets_no_sizes():
    validator = ArrayValidator()
    with pytest.raises(ValueError, match=r"centers"):
        validator.real("centers", np.zeros((8, 3)), "N 2")
    assert validator.real("centers", np.zeros((7, 2)), "N 2").shape == (7, 2)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1), (3, 3)])
def test_other_shape_raises(shape):
    with pytest.raises(ValueError, match=r"^centers must have the shape \(N, 2\)"):
        ArrayValidator().real("centers", np.zeros(shape), "N 2")


def test_empty_array_raises():
    with pytest.raises(ValueError, match=r"^images is empty"):
        ArrayValidator().real("images", np.zeros((0, 2)), "N 2")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(value):
    with pytest.raises(ValueError, match=r"^x must be finite"):
        ArrayValidator().real("x", np.array([0.5, value]), "P")


def test_values_must_be_real():
    with pytest.raises(ValueError, match=r"^x must contain real numbers"):
        ArrayValidator().real("x", np.array(["a"]), "P")


@pytest.mark.parametrize("value", [-0.01, 1.01, 255])
def test_values_outside_the_unit_interval_raise(value):
    with pytest.raises(ValueError, match=r"^images must lie in \[0, 1\]"):
        ArrayValidator().unit("images", np.array([0.5, value]), "P")


def test_rounding_errors_are_clipped():
    np.testing.assert_array_equal(ArrayValidator().unit("images", np.array([-1e-7, 1 + 1e-7]), "P"), [0, 1])


def test_gray_images_become_rgb_with_channels_last():
    gray = np.random.default_rng(0).random((2, 1, 3, 4))
    rgb = ArrayValidator().images("images", gray, "N C H W")
    assert rgb.shape == (2, 3, 4, 3)
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], gray[:, 0])


def test_rgb_images_keep_their_channels():
    images = np.random.default_rng(0).random((2, 3, 3, 4))
    np.testing.assert_array_equal(ArrayValidator().images("images", images, "N C H W")[..., 2], images[:, 2])


def test_images_must_have_one_or_three_channels():
    with pytest.raises(ValueError, match=r"^images must have 1 channel"):
        ArrayValidator().images("images", np.zeros((2, 2, 3, 4)), "N C H W")


@pytest.mark.parametrize("value", [-1, 4])
def test_class_indices_must_be_in_range(value):
    with pytest.raises(ValueError, match=r"^labels must lie between 0 and 3"):
        ArrayValidator(K=4).class_indices("labels", np.array([0, value]), "N")


def test_class_indices_must_be_integers():
    with pytest.raises(ValueError, match=r"^labels must be integers"):
        ArrayValidator(K=4).class_indices("labels", np.array([0.0, 1.0]), "N")


def test_every_class_must_have_a_name():
    with pytest.raises(ValueError, match=r"^classes must name all 4 classes, got 3 names"):
        ArrayValidator(K=4).class_names("classes", "012")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_of_any_precision_and_with_a_gradient_are_accepted(dtype):
    tensor = torch.tensor([0.25, 0.5], dtype=dtype, requires_grad=True)
    np.testing.assert_array_equal(ArrayValidator().unit("x", tensor, "P"), [0.25, 0.5])
