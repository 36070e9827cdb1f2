import pytest
import torch
from torch import nn

from zoo.control._networks import ConvEncoder, RunningNorm, is_image, make_network


class TestMakeNetwork:
    @pytest.mark.parametrize("shape", [(), (4,), (3, 5, 2), (4, 4), (7, 7, 2)], ids=str)
    def test_network_accepts_observations_of_any_shape_and_dtype(self, shape):
        net = make_network(shape, 2, (8,))
        for observation in (torch.zeros(7, 5, *shape), torch.zeros(7, 5, *shape, dtype=torch.uint8)):
            assert net(observation).shape == (7, 5, 2)

    def test_hidden_layer_without_units_raises(self):
        with pytest.raises(ValueError, match=r"at least 1 unit each, got hidden=\[8, 0\]"):
            make_network((4,), 2, (8, 0))

    def test_vectors_are_normalized_and_images_convolved(self):
        assert [type(part) for part in make_network((4,), 2, (8,))] == [RunningNorm, nn.Linear, nn.Tanh, nn.Linear]
        assert [type(part) for part in make_network((7, 7, 2), 2, (8,))] == [ConvEncoder, nn.Linear, nn.ReLU, nn.Linear]

    def test_network_may_have_no_hidden_layer(self):
        assert make_network((7, 7, 2), 3, ())(torch.zeros(2, 7, 7, 2)).shape == (2, 3)


class TestConvEncoder:
    @pytest.mark.parametrize(
        ("shape", "image"),
        [((10, 10, 4), True), ((3, 96, 96), True), ((2, 4, 9), False), ((10, 3, 10), False), ((9,), False)],
    )
    def test_images_are_recognized_by_their_shape(self, shape, image):
        assert is_image(shape) is image

    def test_channels_are_found_first_or_last(self):
        last, first = ConvEncoder((10, 9, 4)), ConvEncoder((4, 10, 9))
        first.load_state_dict(last.state_dict())
        image = torch.rand(3, 2, 10, 9, 4)
        torch.testing.assert_close(last(image), first(image.movedim(-1, -3)))
        assert last(image).shape == (3, 2, 16 * 8 * 7)
        assert not torch.allclose(last(image), first(image.movedim(-1, -3).flip(-1)))

    def test_bytes_and_booleans_are_scaled(self):
        convolution = ConvEncoder((5, 5, 1))
        image = torch.rand(3, 5, 5, 1) > 0.5
        expected = convolution(image.float())
        torch.testing.assert_close(convolution(image), expected)
        torch.testing.assert_close(convolution(image.to(torch.uint8) * 255), expected)

    def test_screens_use_the_convolutions_of_dqn(self):
        """3,136 features of 84 × 84 pixels."""
        assert ConvEncoder((4, 84, 84)).features == 64 * 7 * 7


class TestRunningNorm:
    def test_updated_observations_have_mean_0_and_standard_deviation_1(self):
        """Over all batches, of different sizes."""
        x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 20.0, 0.1]) + 5
        standardize = RunningNorm((3,))
        for batch in x.split([10, 60, 30]):
            standardize.update(batch)
        torch.testing.assert_close(standardize(x), (x - x.mean(0)) / x.std(0, correction=0), rtol=1e-4, atol=1e-4)

    def test_observations_are_unchanged_before_the_first_update(self):
        assert RunningNorm((2,))(torch.tensor([[3.0, -2.0]])).tolist() == [[3, -2]]

    def test_forward_does_not_change_the_statistics(self):
        standardize = RunningNorm((2,))
        before = {name: value.clone() for name, value in standardize.state_dict().items()}
        standardize(torch.randn(5, 2))
        assert all(torch.equal(value, before[name]) for name, value in standardize.state_dict().items())

    def test_empty_batch_does_not_change_the_statistics(self):
        standardize = RunningNorm((1,))
        standardize.update(torch.tensor([[1.0], [3.0]]))
        standardize.update(torch.empty(0, 1))
        assert standardize(torch.tensor([[4.0]])).tolist() == [[2.0]]

    @pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
    def test_large_offset_is_subtracted_before_rounding_to_single_precision(self, dtype):
        """Seconds since 1970: single precision resolves two minutes."""
        steps = torch.randint(0, 100, (1000, 2), generator=torch.Generator().manual_seed(0)).to(dtype)
        standardize, plain = RunningNorm((2,)), RunningNorm((2,))
        for batch in (steps + 1_700_000_000).split(250):
            standardize.update(batch)
        for batch in steps.float().split(250):
            plain.update(batch)
        torch.testing.assert_close(standardize(steps + 1_700_000_000), plain(steps.float()), rtol=1e-4, atol=1e-4)

    def test_constant_observations_stay_finite(self):
        standardize = RunningNorm((1,))
        standardize.update(torch.full((5, 1), 7.0))
        assert standardize(torch.tensor([[7.0], [1e9], [-1e9]])).tolist() == [[0], [10], [-10]]
