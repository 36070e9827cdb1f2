import pytest
import torch

from zoo.attention.captioning._backbone import BACKBONES, EfficientNetLite, normalize
from zoo.attention.captioning.module import CaptionBatch, Captioner

WORDS = ("<eos>", "<unk>", "a", "red", "circle")
SMALL = {"embedding_size": 4, "hidden_size": 6, "value_size": 5, "query_size": 3, "max_length": 5}


def make(**options):
    torch.manual_seed(0)
    return Captioner(WORDS, 28, **{**SMALL, **options})


@pytest.fixture
def images():
    return torch.randint(256, (3, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batch(images):
    words = torch.tensor([[2, 3, 4, 0], [2, 4, 0, 0], [4, 0, 0, 0]]).T[..., None]
    return CaptionBatch(images, words, torch.arange(3))


class TestCaptioner:
    def test_captions_are_words_with_their_cells(self, images):
        captions = make().eval()(images)
        assert len(captions.words) == 3
        assert {word for words in captions.words for word in words} <= set(WORDS) - {"<eos>", "<unk>"}
        time = max(map(len, captions.words))
        assert captions.cells.shape[0] in (time, time + 1)
        assert captions.probabilities.shape == (*captions.cells.shape, 49)
        assert (captions.log_prob < 0).all()

    @pytest.mark.parametrize("options", [{}, {"attention": "random"}, {"cell_selection": "sample"}])
    def test_captions_depend_on_the_seed_and_not_on_the_global_generator(self, images, options):
        model = make(**options).eval()
        before = torch.random.get_rng_state()
        first = model(images, seed=3)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(5)
        second = model(images, seed=3)
        assert first.words == second.words
        assert torch.equal(first.cells, second.cells)

    def test_concatenated_backbones_encode_images_as_each_does(self, images, monkeypatch):
        backbones = {name: EfficientNetLite(name).requires_grad_(False).eval() for name in BACKBONES}
        monkeypatch.setattr("zoo.attention.captioning.module.load_backbone", backbones.__getitem__)
        model = make(encoder="efficientnet_lite_concat").eval()
        maps = [backbone(normalize(images), stride=32).flatten(2).mT for backbone in backbones.values()]
        torch.testing.assert_close(model(images).log_prob, model.caption(torch.cat(maps, -1)).log_prob)

    @pytest.mark.parametrize(
        ("images", "got"),
        [
            (torch.zeros(1, 3, 28, 28), "torch.float32"),
            (torch.zeros(1, 3, 28, 30, dtype=torch.uint8), r"\(1, 3, 28, 30\)"),
            (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), r"\(1, 1, 28, 28\)"),
        ],
    )
    @pytest.mark.usefixtures("without_type_checks")
    def test_other_images_are_refused(self, images, got):
        with pytest.raises(ValueError, match=rf"images must be uint8 of shape \(images, 3, 28, 28\), got .*{got}"):
            make()(images)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_samples": 1}, "num_samples must be at least 2, got 1"),
            ({"attention": "soft", "cell_selection": "sample"}, "cell_selection=sample is for attention=hard"),
            ({"reward": "rouge"}, "there is no reward 'rouge'; choose one of cider, bleu4"),
            ({"objective": "mle"}, "there is no objective 'mle'; choose one of cross_entropy, scst"),
            ({"encoder": "vgg"}, "there is no encoder 'vgg'; choose one of cell_cnn, efficientnet_lite0"),
            ({"stride": 8}, "stride must be 16 or 32, got 8"),
            ({"estimator": {"baseline": "greedy"}}, "there is no baseline 'greedy'"),
            ({"objective": "scst", "policy_weight": 0.0}, "policy_weight=0 leaves sequence training nothing to learn"),
        ],
    )
    def test_wrong_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            make(**options)

    def test_images_of_another_size_need_cells_of_at_least_four_pixels(self):
        with pytest.raises(ValueError, match=r"a multiple of 7, and at least 28, got 30; set data\.size"):
            Captioner(WORDS, 30)


class TestObjective:
    @pytest.mark.parametrize("attention", ["hard", "soft", "uniform", "random", "first"])
    def test_policy_is_trained_where_cells_are_sampled(self, attention, batch):
        model = make(attention=attention, expected_fraction=0.0)
        objective = model.objective(batch)
        assert (objective.reinforce is not None) == (attention in ("hard", "first"))
        assert objective.nll > 0

    def test_first_trains_the_cell_of_the_first_word_alone(self, batch):
        advantage = make(attention="first", expected_fraction=0.0).objective(batch).reinforce.advantage
        assert advantage[0].any()
        assert not advantage[1:].any()

    @pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.25, 2), (0.5, 4)])
    def test_expected_fraction_is_that_of_the_steps(self, fraction, expected, monkeypatch):
        model = make(expected_fraction=fraction)
        steps = iter(range(8))
        monkeypatch.setattr(Captioner, "global_step", property(lambda self: self.step))
        used = 0
        for model.step in steps:
            used += model._uses_expected_context()
        assert used == expected

    def test_nll_is_the_mean_over_the_words(self, batch):
        model = make(attention="uniform", dropout=0.0).eval()
        annotations = model.annotate(batch.inputs)
        log_prob = model.decoder.decode(annotations, batch.words).word_log_prob
        total = log_prob[:4, 0].sum() + log_prob[:3, 1].sum() + log_prob[:2, 2].sum()
        torch.testing.assert_close(model.objective(batch).nll, -total / 9)


class TestSequenceTraining:
    def reward(self, images, words):
        return (words == 3).sum(0).double()  # the number of times that "red" occurs

    def test_rewarded_word_becomes_more_likely(self, batch):
        model = make(objective="scst", num_samples=20)
        model.reward_function = self.reward
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        means = []
        for _ in range(40):
            objective = model.objective(batch)
            means.append((objective.reinforce.advantage + objective.reinforce.baseline).mean().item())
            optimizer.zero_grad()
            objective.policy_loss.backward()
            optimizer.step()
        assert sum(means[-5:]) / 5 > 2 * sum(means[:5]) / 5

    def test_greedy_baseline_is_the_reward_of_greedy_captions(self, batch):
        model = make(objective="scst", estimator={"baseline": "greedy"})
        model.reward_function = self.reward
        greedy = model.caption(batch.inputs, beam_size=1).words
        counts = torch.tensor([words.count("red") for words in greedy], dtype=torch.float64)
        torch.manual_seed(1)
        advantage = model.objective(batch).reinforce.advantage
        torch.manual_seed(1)
        model.uses_greedy_baseline = False
        reward = model.objective(batch).reinforce.advantage
        torch.testing.assert_close(advantage, reward - counts[:, None].float())

    @pytest.mark.parametrize("is_training", [False, True])
    def test_greedy_baseline_has_no_dropout_and_leaves_the_mode(self, is_training, batch, monkeypatch):
        model = make(objective="scst", estimator={"baseline": "greedy"}).train(is_training)
        model.reward_function, search, modes = self.reward, model._search, []

        def record(*args, **options):
            modes.append(model.decoder.training)
            return search(*args, **options)

        monkeypatch.setattr(model, "_search", record)
        model.objective(batch)
        assert modes == [False]
        assert all(part.training == is_training for part in model.modules())

    def test_missing_rewards_are_named(self, batch):
        with pytest.raises(ValueError, match="needs rewards: set the attribute reward_function of the model"):
            make(objective="scst").objective(batch)
