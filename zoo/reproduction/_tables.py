from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.reproduction._summaries import formatted, max_abs, mean_and_interval, median_and_max, percent


class Row(NamedTuple):
    """Row of a table."""

    name: str  # by which ``zoo reproduce rows=NAME`` selects it
    label: str
    experiment: str  # in configs/experiment
    data: str  # name in run records; results on other data are never shown in this row
    published: Mapping[str, str] = {}  # by column
    best_public_reproduction: str = ""  # best value of a public reproduction by others
    omitted_metrics: tuple[str, ...] = ()
    starts_from: str = ""  # row whose run with the same seed gives the initial weights
    smoke_model: tuple[str, ...] = ()  # overrides in the place of the experiment where its data are not at hand
    equal_length: bool = True  # the same number of steps with every seed, so that a learning curve can be averaged


class MetricColumn(NamedTuple):
    """Column with a metric of our runs."""

    label: str
    metric: str  # in the metrics of a run record
    summary: Callable[[Sequence[float]], str]  # of the values of all seeds


class Paper(NamedTuple):
    """Table of published and own results, and the experiments behind it."""

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[MetricColumn, ...]
    columns: tuple[str, ...] = ()  # of published values
    seeds: tuple[int, ...] = (1, 2, 3)
    curve: str = ""  # metric in metrics.csv for the learning curves


def _ram_row(glimpses: int, proceedings: str, arxiv: str, best: str = "") -> Row:
    published = {"proceedings": proceedings, "arXiv v1": arxiv}
    label = f"RAM, {glimpses} glimpses, 8×8, 1 scale"
    return Row(str(glimpses), label, f"ram_mnist_28_{glimpses}", "mnist", published, best)


def _minatar_row(game: str, actor_critic: str, deep_q: str) -> Row:
    published = {"AC(0.8)": actor_critic, "DQN": deep_q}
    label, experiment = f"{game}, policy gradient, 5 M frames", f"policy_gradient_minatar_{game.lower()}"
    return Row(game, label, experiment, f"MinAtar/{game}-v0", published)


def _posterior_row(name: str, label: str) -> Row:
    return Row(name, label, f"bbvi_{name}", name)


def _ablation_row(name: str, label: str, experiment: str, bound: str) -> Row:
    return Row(name, f"ablation: {label}", experiment, "binarized_mnist", {"figure 1, read off": bound})


def _flickr8k_row(
    name: str,
    label: str,
    *model: str,
    published: Mapping[str, str] = {},
    best_public_reproduction: str = "",
    starts_from: str = "",
) -> Row:
    return Row(
        name,
        label,
        f"captioning_flickr8k_{name.replace('-', '_')}",
        "flickr8k",
        published,
        best_public_reproduction,
        omitted_metrics=("test_exact", "test_hit_rate"),
        starts_from=starts_from,
        smoke_model=("model=captioning", *model),
    )


def _scenes_row(name: str, label: str) -> Row:
    experiment = f"captioning_{name.replace('-', '_')}"
    return Row(
        name, label, experiment, "captioned-scenes", omitted_metrics=("test_meteor", "test_cider", "test_cider_greedy")
    )


PAPERS = {
    # Two sets of values are published: those of the proceedings (NIPS 2014) and the higher ones of arXiv 1406.6247v1.
    "ram": Paper(
        title="Mnih, Heess, Graves & Kavukcuoglu, “Recurrent models of visual attention”, 2014: "
        "test error on 28×28 MNIST in percent",
        columns=("proceedings", "arXiv v1"),
        rows=(
            _ram_row(2, "3.79", "6.27", "2.34"),
            _ram_row(3, "1.51", "2.7"),
            _ram_row(4, "1.54", "1.73", "1.07"),
            _ram_row(5, "1.34", "1.55"),
            _ram_row(6, "1.12", "1.29", "0.67"),
            _ram_row(7, "1.07", "1.47", "0.85"),
            Row("spiral", "control: 6 glimpses at the initial locations", "ram_mnist_28_6_spiral", "mnist"),
            Row("random", "control: 6 random glimpses", "ram_mnist_28_6_random", "mnist"),
            Row("center", "control: 6 glimpses at the center", "ram_mnist_28_6_center", "mnist"),
        ),
        metrics=(MetricColumn("ours", "test_error", percent),),
    ),
    "captioning": Paper(
        title="Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel & Bengio, “Show, attend and tell”, 2015: captions "
        "of the test photographs of Flickr8k in percent; generated scenes",
        columns=("BLEU-4", "METEOR"),
        rows=(
            _flickr8k_row(
                *("hard", "hard attention"),
                published={"BLEU-4": "21.3", "METEOR": "20.30"},
                best_public_reproduction="24.40",
            ),
            _flickr8k_row(
                *("soft", "soft attention", "model.attention=soft"),
                published={"BLEU-4": "19.5", "METEOR": "18.93"},
                best_public_reproduction="24.20",
            ),
            _flickr8k_row("random", "control: a random cell", "model.attention=random"),
            _flickr8k_row("uniform", "control: the mean of all cells", "model.attention=uniform"),
            _flickr8k_row("hard-stride16", "hard attention, 17×17 cells, h₀ without the image", "model.init=learned"),
            _flickr8k_row(
                *("random-stride16", "control: a random cell of these"),
                *("model.attention=random", "model.init=learned"),
            ),
            _flickr8k_row(
                *("uniform-stride16", "control: the mean of these"),
                *("model.attention=uniform", "model.init=learned"),
            ),
            _flickr8k_row(
                *("scst", "sequence training of the first row, leave-one-out baseline", "model.objective=scst"),
                starts_from="hard",
            ),
            _flickr8k_row(
                *("scst-greedy", "sequence training of the first row, greedy baseline"),
                *("model.objective=scst", "estimator.baseline=greedy"),
                starts_from="hard",
            ),
            _scenes_row("scenes", "scenes, hard attention"),
            _scenes_row("scenes-random", "scenes, control: a random cell"),
        ),
        metrics=(
            MetricColumn("BLEU-4, ours", "test_bleu4", percent),
            MetricColumn("METEOR, ours", "test_meteor", percent),
            MetricColumn("CIDEr-D", "test_cider", percent),
            MetricColumn("CIDEr-D, greedy", "test_cider_greedy", percent),
            MetricColumn("nats per word", "test_nll", mean_and_interval),
            MetricColumn("exact captions", "test_exact", percent),
            MetricColumn("hit rate", "test_hit_rate", percent),
        ),
    ),
    "nvil": Paper(
        title="Mnih & Gregor, “Neural variational inference and learning in belief networks”, 2014: negative ELBO in "
        "nats on statically binarized MNIST; theirs on test images, in figure 1 on validation images",
        columns=("table 1", "figure 1, read off"),
        rows=(
            Row("200", "SBN 200", "sbn_200", "binarized_mnist", {"table 1": "113.1"}, "110.3"),
            Row("200-200", "SBN 200-200", "sbn_200_200", "binarized_mnist", {"table 1": "99.8"}, "98.2"),
            _ablation_row("full", "NVIL", "sbn_200_nvil", "114.5"),
            _ablation_row("no-input-baseline", "no input-dependent baseline", "sbn_200_nvil_no_input_baseline", "118"),
            _ablation_row("baselines", "baselines only", "sbn_200_nvil_no_normalization", "125"),
            _ablation_row("normalization", "variance normalization only", "sbn_200_nvil_only_normalization", "138"),
            _ablation_row("none", "none", "sbn_200_nvil_none", "217"),
        ),
        metrics=(
            MetricColumn("ours, test, mean of 10 samples", "test_negative_elbo", mean_and_interval),
            MetricColumn("validation, mean of 10 samples", "validation_negative_elbo", mean_and_interval),
            MetricColumn("test, importance-weighted bound, S = 100", "test_negative_bound_100", mean_and_interval),
        ),
        seeds=(1,),
    ),
    "bbvi": Paper(
        title="Ranganath, Gerrish & Blei, “Black box variational inference”, 2014: mean-field guides fitted by "
        "the score function, on posteriors of posteriordb; worst over all elements of the latent variables and all "
        "seeds",
        rows=(
            _posterior_row("eight_schools", "eight schools"),
            _posterior_row("kidiq", "kidiq"),
            _posterior_row("sblri", "sblri"),
            _posterior_row("sblrc", "sblrc"),
            _posterior_row("gaussian_mixture", "Gaussian mixture"),
            _posterior_row("hmm_example", "hmm_example"),
        ),
        metrics=(
            MetricColumn(
                "distance of the mean from the family's optimum, in sds of the optimum", "optimum_mean_gap", max_abs
            ),
            MetricColumn("smallest ratio of sds to the optimum", "optimum_sd_ratio_low", formatted(min, ".2f")),
            MetricColumn("largest ratio of sds to the optimum", "optimum_sd_ratio_high", formatted(max, ".2f")),
            MetricColumn(
                "distance of the mean from the posterior's, in sds of the posterior", "reference_mean_gap", max_abs
            ),
            MetricColumn("smallest ratio of sds to the posterior", "reference_sd_ratio_low", formatted(min, ".2f")),
            MetricColumn("k̂", "k_hat", formatted(max, ".2f")),
        ),
    ),
    "cartpole": Paper(
        title="Williams, “Simple statistical gradient-following algorithms for connectionist reinforcement learning”, "
        "1992: policy gradient on CartPole-v1 and Acrobot-v1; steps as median and maximum over seeds",
        rows=(
            Row("cartpole", "CartPole-v1, 100,000 steps", "policy_gradient_cartpole", "CartPole-v1"),
            Row(
                "acrobot",
                "Acrobot-v1, until it is solved",
                "policy_gradient_acrobot",
                "Acrobot-v1",
                omitted_metrics=("env_steps_to_training_solved", "solved_of_last_10"),  # runs stop at the first success
                equal_length=False,
            ),
        ),
        metrics=(
            MetricColumn("steps to the first evaluation that solves it", "env_steps_to_solved", median_and_max),
            MetricColumn("steps until training episodes solve it", "env_steps_to_training_solved", median_and_max),
            MetricColumn("solved among the last 10 evaluations, %", "solved_of_last_10", percent),
            MetricColumn("final return", "eval_return_mean", mean_and_interval),
        ),
        seeds=tuple(range(1, 21)),
        curve="eval_return_mean",
    ),
    "tabular": Paper(
        title="Watkins, “Learning from delayed rewards”, 1989: tabular Q-learning, evaluated exactly at γ = 0.99; "
        "maximum over seeds",
        rows=(
            Row("4x4", "FrozenLake-v1, 4 × 4", "q_learning_frozen_lake_4x4", "FrozenLake-v1"),
            Row("8x8", "FrozenLake8x8-v1", "q_learning_frozen_lake_8x8", "FrozenLake8x8-v1"),
            Row("cliff", "CliffWalking-v1", "q_learning_cliff_walking", "CliffWalking-v1"),
            Row("taxi", "Taxi-v4", "q_learning_taxi", "Taxi-v4"),
        ),
        metrics=(
            MetricColumn("V* − V of the greedy policy at the start", "start_value_gap", max_abs),
            MetricColumn("max abs(Q − Q*)", "q_distance", max_abs),
        ),
        seeds=tuple(range(1, 11)),
    ),
    "dqn": Paper(
        title="Mnih et al., “Human-level control through deep reinforcement learning”, 2015: deep Q-learning on "
        "CartPole-v1; the final policy after 100,000 steps",
        rows=(Row("cartpole", "CartPole-v1", "dqn_cartpole", "CartPole-v1"),),
        metrics=(
            MetricColumn("final return", "greedy_return_mean", mean_and_interval),
            MetricColumn("minimum over seeds", "greedy_return_mean", formatted(min, ".1f")),
        ),
        seeds=tuple(range(1, 11)),
        curve="greedy_return_mean",
    ),
    "minatar": Paper(
        title="Young & Tian, “MinAtar: an Atari-inspired testbed”, 2019: mean return, theirs after 5 M frames, "
        "read off the published learning curves",
        columns=("AC(0.8)", "DQN"),
        rows=(
            _minatar_row("Breakout", "17.5", "10"),
            _minatar_row("SpaceInvaders", "185", "45"),
            _minatar_row("Asterix", "19", "17"),
            Row(
                "Breakout-dqn",
                "Breakout, deep Q-learning, 1 M frames",
                "dqn_minatar_breakout",
                "MinAtar/Breakout-v0",
                {"DQN": "10"},
            ),
        ),
        metrics=(
            MetricColumn("ours, stochastic", "eval_return_mean", mean_and_interval),
            MetricColumn("ours, greedy", "greedy_return_mean", mean_and_interval),
        ),
        seeds=(1,),
    ),
}


CHECKOUT_RECORDS = Path(__file__).parents[2] / "docs" / "results"  # of the checkout; the tables are next to it
_SMOKE = {  # overrides for runs of seconds, by model
    "ram": ("data=mnist_5k", "trainer.max_epochs=1"),
    "captioning": (
        *("data=captioned_scenes", "data.num_train=64", "data.num_validation=8", "data.num_test=8"),
        *("model.max_length=12", "trainer.max_epochs=1"),
    ),
    "sbn": ("data=mnist_5k", "trainer.max_epochs=1"),
    "bbvi": ("trainer.max_epochs=1", "model.num_eval_samples=500"),
    "policy_gradient": (
        *("model.num_envs=4", "model.eval_freq=512", "model.n_eval_episodes=4"),
        "model.total_timesteps=2048",
    ),
    "q_learning": ("model.num_envs=64", "model.eval_freq=4096", "model.total_timesteps=16_384"),
    "dqn": (
        *("model.num_envs=4", "model.eval_freq=512", "model.n_eval_episodes=4"),
        *("model.learning_starts=0", "model.gradient_steps=1", "model.total_timesteps=2048"),
    ),
}


def settings_of(row: Row, budget: str) -> list[str]:
    """Return the overrides of a row's runs, except the seed."""
    (smoke,) = (settings for model, settings in _SMOKE.items() if row.experiment.startswith(f"{model}_"))
    if budget != "smoke":
        return [f"experiment={row.experiment}"]
    return [*(row.smoke_model or [f"experiment={row.experiment}"]), *smoke]


def check_request(paper: str, budget: str, rows: Sequence[str] | None, publish: bool) -> tuple[Paper, list[Row]]:
    """Return the paper and rows of a request; raise ``ValueError`` if one does not exist."""
    if paper not in PAPERS:
        raise ValueError(f"there is no paper {paper!r}; there are: {', '.join(PAPERS)}")
    if budget not in ("full", "smoke"):
        raise ValueError(f"there is no budget {budget!r}; choose one of full, smoke")
    if publish and budget == "smoke":
        raise ValueError("a smoke run has no results to publish: remove publish or budget")
    if publish and not CHECKOUT_RECORDS.is_dir():
        raise ValueError(f"publish=true writes into a checkout, and there is no {CHECKOUT_RECORDS}: remove publish")
    return PAPERS[paper], chosen_rows(PAPERS[paper], rows)


def chosen_rows(paper: Paper, names: Sequence[str] | None) -> list[Row]:
    """Return rows by name; all for None."""
    known = {row.name: row for row in paper.rows}
    for name in names or []:
        if name not in known:
            raise ValueError(f"there is no row {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names or known]
