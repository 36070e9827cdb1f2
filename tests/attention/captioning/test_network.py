import pytest
import torch

from zoo.attention.captioning._sampling import sample_categorical
from zoo.attention.captioning.network import ATTENTION, AttentionDecoder

IMAGES, CELLS, CHANNELS, WORDS, TIME, SAMPLES = 3, 4, 5, 6, 5, 2


def make_decoder(**options):
    torch.manual_seed(0)
    sizes = {"embedding_size": 4, "hidden_size": 6, "value_size": 5, "query_size": 3, "dropout": 0.0}
    decoder = AttentionDecoder(CHANNELS, (2, 2), WORDS, **sizes, **options)
    for parameter in decoder.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return decoder


@pytest.fixture
def features():
    return torch.randn(IMAGES, CELLS, CHANNELS, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def words():
    return torch.randint(WORDS, (TIME, IMAGES, 1), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def noise():
    return torch.rand(TIME, IMAGES, SAMPLES, generator=torch.Generator().manual_seed(3))


def decode(decoder, features, words, *args, **options):
    return decoder.decode(decoder.annotate(features), words, *args, **options)


class TestDecoder:
    def test_dropout_hides_channels_in_all_cells_of_an_image_at_once(self, features):
        decoder = AttentionDecoder(CHANNELS, (2, 2), WORDS, dropout=0.5)
        seen = []
        decoder.to_value.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        decoder.annotate(features)
        decoder.eval().annotate(features)
        kept, whole = seen
        hidden = kept == 0
        assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
        assert 0 < hidden.float().mean() < 1
        torch.testing.assert_close(kept, 2 * whole.where(~hidden, 0.0))

    def test_annotation_of_a_cell_depends_on_its_place(self, features):
        decoder = make_decoder()
        same = decoder.annotate(features[:, :1].expand(-1, CELLS, -1))
        assert all(not torch.equal(x[:, 0], x[:, 1]) for x in same)

    def test_word_does_not_depend_on_later_words(self, features, words, noise):
        changed = words.clone()
        changed[3:] = (changed[3:] + 1) % WORDS
        one, other = (decode(make_decoder(), features, w, noise) for w in (words, changed))
        assert torch.equal(one.word_log_prob[:3], other.word_log_prob[:3])
        assert torch.equal(one.cells[:4], other.cells[:4])  # cell 3 is chosen before word 3 is known
        assert not torch.equal(one.word_log_prob[3], other.word_log_prob[3])

    def test_word_does_not_depend_on_later_cells(self, features, words, noise):
        cells = torch.zeros(TIME, IMAGES, SAMPLES, dtype=torch.long)
        changed = cells.clone()
        changed[3:] = 1
        one, other = (decode(make_decoder(), features, words, cells=c) for c in (cells, changed))
        assert torch.equal(one.word_log_prob[:3], other.word_log_prob[:3])
        assert (one.word_log_prob[3] != other.word_log_prob[3]).all()

    def test_images_do_not_influence_each_other(self, features, words, noise):
        decoder = make_decoder()
        together = decode(decoder, features, words, noise).word_log_prob
        alone = [decode(decoder, features[i : i + 1], words[:, i : i + 1], noise[:, i : i + 1]) for i in range(IMAGES)]
        torch.testing.assert_close(together, torch.cat([run.word_log_prob for run in alone], 1))

    def test_word_probabilities_sum_to_one(self, features, noise):
        decoder = make_decoder()
        every = torch.arange(WORDS).expand(1, IMAGES, WORDS)
        cells = torch.zeros(1, IMAGES, WORDS, dtype=torch.long)
        total = decode(decoder, features, every, cells=cells).word_log_prob.exp().sum(-1)
        torch.testing.assert_close(total, torch.ones(1, IMAGES))

    def test_log_prob_of_cells_is_that_of_the_probabilities(self, features, words, noise):
        run = decode(make_decoder(), features, words, noise)
        expected = run.probabilities.gather(-1, run.cells[..., None]).squeeze(-1).log()
        torch.testing.assert_close(run.cell_log_prob, expected)
        entropy = torch.distributions.Categorical(run.probabilities).entropy()
        torch.testing.assert_close(run.entropy, entropy)

    def test_learned_initial_state_does_not_depend_on_the_image(self, features):
        decoder = make_decoder(init="learned")
        state = decoder.initial_state(decoder.annotate(features), 1)
        assert torch.equal(state.hidden[0], state.hidden[1])
        decoder = make_decoder()
        state = decoder.initial_state(decoder.annotate(features), 1)
        assert not torch.equal(state.hidden[0], state.hidden[1])

    @pytest.mark.parametrize("options", [{"attention": "softt"}, {"init": "zero"}])
    def test_unknown_choice_is_refused(self, options):
        with pytest.raises(ValueError, match=r"there is no .*; choose"):
            make_decoder(**options)


class TestAttention:
    def test_soft_attention_weights_annotations_with_the_probabilities(self, features):
        decoder = make_decoder(attention="soft")
        annotations = decoder.annotate(features)
        at = decoder.attend(annotations, decoder.initial_state(annotations, SAMPLES))
        torch.testing.assert_close(at.context, at.probabilities @ annotations.values)

    def test_hard_attention_reads_the_sampled_cell(self, features, noise):
        decoder = make_decoder()
        annotations = decoder.annotate(features)
        at = decoder.attend(annotations, decoder.initial_state(annotations, SAMPLES), noise[0])
        for image in range(IMAGES):
            for sample in range(SAMPLES):
                expected = annotations.values[image, at.cells[image, sample]]
                assert torch.equal(at.context[image, sample], expected)

    def test_without_noise_hard_attention_reads_the_most_likely_cell(self, features, words):
        run = decode(make_decoder(), features, words)
        assert torch.equal(run.cells, run.probabilities.argmax(-1))

    def test_first_keeps_the_cell_of_the_first_word(self, features, words, noise):
        run = decode(make_decoder(attention="first"), features, words, noise)
        assert (run.cells == run.cells[0]).all()
        assert torch.equal(run.cells[0], decode(make_decoder(), features, words, noise).cells[0])

    def test_random_cells_are_uniform_and_do_not_depend_on_the_image(self, features, words, noise):
        run = decode(make_decoder(attention="random"), features, words, noise)
        assert torch.equal(run.cells, (noise * CELLS).long())

    def test_uniform_attention_reads_the_mean(self, features):
        decoder = make_decoder(attention="uniform")
        annotations = decoder.annotate(features)
        context = decoder.attend(annotations, decoder.initial_state(annotations, 1)).context
        torch.testing.assert_close(context, annotations.values.mean(1, keepdim=True))

    @pytest.mark.parametrize("attention", ATTENTION)
    def test_every_attention_has_a_gradient_for_the_parameters_that_it_uses(self, attention, features, words, noise):
        decoder = make_decoder(attention=attention)
        run = decode(decoder, features, words, noise)
        (run.word_log_prob.sum() + run.cell_log_prob.sum()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())


class TestSampleCategorical:
    def test_frequencies_are_the_probabilities(self):
        p = torch.tensor([0.1, 0.0, 0.6, 0.3])
        noise = (torch.arange(1000) + 0.5) / 1000  # every thousandth: no statistics needed
        counts = sample_categorical(p.expand(1000, -1), noise).bincount(minlength=4)
        assert counts.tolist() == [100, 0, 600, 300]

    def test_largest_noise_yields_a_category_although_the_sum_falls_short(self):
        p = torch.full((3,), 0.333)
        assert sample_categorical(p, torch.tensor(0.99999994)).item() == 2

    def test_smallest_noise_skips_categories_of_probability_zero(self):
        assert sample_categorical(torch.tensor([0.0, 0.4, 0.6]), torch.tensor(0.0)).item() == 1
