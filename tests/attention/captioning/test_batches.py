import numpy as np
import torch

from zoo.attention.captioning._batches import BucketedBatches, CaptionExamples

CAPTIONS = [[[5] * (1 + (7 * i + j) % 9) + [0] for j in range(1 + i % 3)] for i in range(90)]


def examples(per_image=False):
    return CaptionExamples(torch.arange(90.0)[:, None], CAPTIONS, per_image)


def batches(seed=0, epoch=0, rank=0, world_size=1):
    loader = BucketedBatches(examples(), 2, seed, rank, world_size)
    loader.set_epoch(epoch)
    return loader


def content(loader):
    return [(batch.images.tolist(), batch.words.tolist()) for batch in loader]


def test_examples_are_captions_with_their_image():
    found = examples()
    assert len(found) == sum(map(len, CAPTIONS))
    batch = found[torch.tensor([0, 2, 3])]
    assert batch.images.tolist() == [0, 1, 2]
    assert batch.inputs.flatten().tolist() == [0.0, 1.0, 2.0]
    for column, caption in enumerate([CAPTIONS[0][0], CAPTIONS[1][1], CAPTIONS[2][0]]):
        words = batch.words[:, column, 0].tolist()
        assert words == [*caption, *[0] * (len(words) - len(caption))]


def test_examples_per_image_hold_all_captions_and_eos_for_missing_ones():
    batch = examples(per_image=True)[torch.tensor([0, 2])]
    assert batch.words.shape[1:] == (2, 3)
    assert not batch.words[:, 0, 1:].any()
    for j, caption in enumerate(CAPTIONS[2]):
        assert batch.words[: len(caption), 1, j].tolist() == caption


def test_feature_maps_of_several_backbones_are_concatenated_along_the_channels():
    maps = [np.random.default_rng(channels).random((2, 4, channels), np.float32) for channels in (3, 5)]
    batch = CaptionExamples(maps, [[[5, 0]], [[6, 0]]])[torch.tensor([1, 0])]
    assert np.array_equal(batch.inputs, np.concatenate(maps, -1)[[1, 0]])


def test_every_caption_is_in_an_epoch_once():
    found = [image for images, _ in content(batches()) for image in images]
    assert sorted(found) == [i for i, captions in enumerate(CAPTIONS) for _ in captions]


def test_captions_of_a_batch_have_similar_lengths():
    spread = [int((batch.words != 0).sum(0).max() - (batch.words != 0).sum(0).min()) for batch in batches()]
    assert sum(spread) / len(spread) < 0.2
    shuffled = examples()
    assert float(shuffled.lengths.float().std()) > 2


def test_order_depends_on_seed_and_epoch_only():
    assert content(batches()) == content(batches())
    assert content(batches()) != content(batches(epoch=1))
    assert content(batches()) != content(batches(seed=1))


def test_loader_resumes_within_an_epoch():
    loader = batches(epoch=2)
    iterator = iter(loader)
    taken = [next(iterator) for _ in range(10)]
    other = batches()
    other.load_state_dict(loader.state_dict())
    rest = content(other)
    assert [(b.images.tolist(), b.words.tolist()) for b in taken] + rest == content(batches(epoch=2))


def test_ranks_have_equally_many_batches_and_cover_the_set():
    shares = [content(batches(rank=rank, world_size=2)) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    images = {image for share in shares for images, _ in share for image in images}
    assert images == set(range(90))
