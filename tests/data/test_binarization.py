import pytest
import torch

from zoo.data import Batches, BinarizedBatches, ImageSet, binarize_set, is_binary


@pytest.fixture
def gray():
    """Ten images of every gray level, one level a row."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256, 1).expand(10, 1, 256, 40).contiguous()
    return ImageSet(levels, torch.arange(10))


def passes(batches, epochs):
    return [torch.cat([images for images, _ in pass_through(batches, epoch)]) for epoch in epochs]


def pass_through(batches, epoch):
    batches.set_epoch(epoch)
    return list(batches)


class TestBinarize:
    def test_pixel_is_white_with_the_probability_of_its_gray_level(self, gray):
        white = (binarize_set(gray).images == 255).double().mean(dim=(0, 1, 3))
        level = torch.arange(256) / 255
        error = (level * (1 - level) / 400).sqrt()
        assert ((white - level).abs() <= 6 * error + 1e-6).all()  # black stays black, white stays white

    def test_binarized_images_are_binary(self, gray):
        assert not is_binary(gray.images)
        assert is_binary(binarize_set(gray).images)

    def test_samples_depend_on_the_seed_only(self, gray):
        before = torch.get_rng_state()
        one, same, other = (binarize_set(gray, seed) for seed in (1, 1, 2))
        assert torch.equal(one.images, same.images)
        assert not torch.equal(one.images, other.images)
        assert torch.equal(torch.get_rng_state(), before)

    def test_labels_are_kept(self, gray):
        assert torch.equal(binarize_set(gray).labels, gray.labels)


class TestBatches:
    def test_binarized_batches_have_the_order_of_batches(self, gray):
        ours = torch.cat([labels for _, labels in BinarizedBatches(gray, 3, seed=1)])
        assert torch.equal(ours, torch.cat([labels for _, labels in Batches(gray, 3, seed=1)]))

    def test_each_epoch_samples_new_pixels(self, gray):
        first, second = passes(BinarizedBatches(gray, 3), (0, 1))
        assert is_binary(first)
        assert not torch.equal(first, second)

    def test_each_batch_samples_new_pixels(self, gray):
        same = ImageSet(gray.images[:1].expand(4, -1, -1, -1), gray.labels[:4])
        images = torch.cat([images for images, _ in BinarizedBatches(same, 1)])
        assert len(images.unique(dim=0)) == 4

    def test_repeated_epoch_samples_the_same_pixels(self, gray):
        one, other = (passes(BinarizedBatches(gray, 3, seed=1), (4,))[0] for _ in range(2))
        assert torch.equal(one, other)

    def test_ranks_sample_independently(self, gray):
        same = ImageSet(gray.images[:1].expand(4, -1, -1, -1), gray.labels[:4])
        shares = [passes(BinarizedBatches(same, 2, seed=1, rank=rank, world_size=2), (0,))[0] for rank in range(2)]
        assert not torch.equal(*shares)

    @pytest.mark.parametrize("num_yielded", [1, 2])
    def test_resumed_pass_samples_the_same_pixels(self, num_yielded, gray):
        whole = BinarizedBatches(gray, 3, seed=1)
        whole.set_epoch(2)
        expected = [images for images, _ in whole]
        stopped = BinarizedBatches(gray, 3, seed=1)
        stopped.set_epoch(2)
        iterator = iter(stopped)
        for _ in range(num_yielded):
            next(iterator)
        resumed = BinarizedBatches(gray, 3, seed=1)
        resumed.load_state_dict(stopped.state_dict())
        rest = [images for images, _ in resumed]
        assert len(rest) == 4 - num_yielded
        assert all(map(torch.equal, rest, expected[num_yielded:]))
