import numpy as np
import pytest
import torch

from zoo.plotting.checks import Shapes


def test_a_letter_means_one_size_in_all_arrays():
    shapes = Shapes()
    shapes.real("centres", np.zeros((8, 6, 2)), "N T 2")
    shapes.real("probabilities", np.zeros((8, 6, 10)), "N T K")
    with pytest.raises(ValueError, match=r"^labels must have the shape \(N=8, T=6\), got \(8, 5\)$"):
        shapes.real("labels", np.zeros((8, 5)), "N T")


def test_a_letter_means_one_size_within_an_array():
    with pytest.raises(ValueError, match=r"^tile must have the shape \(g, g\), got \(3, 4\)$"):
        Shapes().real("tile", np.zeros((3, 4)), "g g")


def test_an_array_that_was_refused_teaches_no_sizes():
    shapes = Shapes()
    with pytest.raises(ValueError, match=r"centres"):
        shapes.real("centres", np.zeros((8, 3)), "N 2")
    assert shapes.real("centres", np.zeros((7, 2)), "N 2").shape == (7, 2)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1), (3, 3)])
def test_a_shape_that_differs_is_refused(shape):
    with pytest.raises(ValueError, match=r"^centres must have the shape \(N, 2\)"):
        Shapes().real("centres", np.zeros(shape), "N 2")


def test_an_empty_array_is_refused():
    with pytest.raises(ValueError, match=r"^images is empty"):
        Shapes().real("images", np.zeros((0, 2)), "N 2")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(value):
    with pytest.raises(ValueError, match=r"^x must be finite"):
        Shapes().real("x", np.array([0.5, value]), "P")


def test_values_must_be_real_numbers():
    with pytest.raises(ValueError, match=r"^x must hold real numbers"):
        Shapes().real("x", np.array(["a"]), "P")


@pytest.mark.parametrize("value", [-0.01, 1.01, 255])
def test_values_outside_zero_and_one_are_refused(value):
    with pytest.raises(ValueError, match=r"^images must lie in \[0, 1\]"):
        Shapes().unit("images", np.array([0.5, value]), "P")


def test_rounding_errors_are_clipped():
    np.testing.assert_array_equal(Shapes().unit("images", np.array([-1e-7, 1 + 1e-7]), "P"), [0, 1])


def test_grey_pictures_become_rgb_with_channels_last():
    grey = np.random.default_rng(0).random((2, 1, 3, 4))
    rgb = Shapes().pictures("images", grey, "N C H W")
    assert rgb.shape == (2, 3, 4, 3)
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], grey[:, 0])


def test_rgb_pictures_keep_their_channels_apart():
    images = np.random.default_rng(0).random((2, 3, 3, 4))
    np.testing.assert_array_equal(Shapes().pictures("images", images, "N C H W")[..., 2], images[:, 2])


def test_pictures_have_one_channel_or_three():
    with pytest.raises(ValueError, match=r"^images must have 1 channel"):
        Shapes().pictures("images", np.zeros((2, 2, 3, 4)), "N C H W")


@pytest.mark.parametrize("value", [-1, 4])
def test_class_indices_lie_among_the_classes(value):
    with pytest.raises(ValueError, match=r"^labels must lie between 0 and 3"):
        Shapes(K=4).class_indices("labels", np.array([0, value]), "N")


def test_class_indices_are_whole_numbers():
    with pytest.raises(ValueError, match=r"^labels must be whole numbers"):
        Shapes(K=4).class_indices("labels", np.array([0.0, 1.0]), "N")


def test_every_class_has_a_name():
    with pytest.raises(ValueError, match=r"^classes must name all 4 classes, got 3 names"):
        Shapes(K=4).class_names("classes", "012")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_of_any_precision_and_with_a_gradient_are_taken(dtype):
    tensor = torch.tensor([0.25, 0.5], dtype=dtype, requires_grad=True)
    np.testing.assert_array_equal(Shapes().unit("x", tensor, "P"), [0.25, 0.5])
