import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from zoo.inference.diagnostics import ParetoK, elbo_figure, pareto_k_figure, posterior_figure

STEPS = np.array([0.0, 100.0, 200.0])
ELBO = np.array([-9.0, -5.0, -4.0])
ERROR = np.array([0.5, 0.2, 0.1])


class TestTheElbo:
    def test_elbo_is_line_in_band_of_95_percent_interval(self):
        (axes,) = elbo_figure({"adam": (STEPS, ELBO, ERROR)}).axes
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([STEPS, ELBO], 1))
        band = axes.collections[0].get_paths()[0].vertices
        assert band[:, 1].min() == pytest.approx(-9 - 1.96 * 0.5)
        assert band[band[:, 0] == 200, 1].max() == pytest.approx(-4 + 1.96 * 0.1)
        assert [text.get_text() for text in axes.texts] == ["adam"]

    def test_log_evidence_is_dashed_line(self):
        (axes,) = elbo_figure({"adam": (STEPS, ELBO, ERROR)}, evidence=-3.5).axes
        assert set(axes.lines[1].get_ydata()) == {-3.5}
        assert axes.lines[1].get_linestyle() == "--"
        assert axes.get_ylim()[1] > -3.5

    @pytest.mark.parametrize(
        ("curves", "sentence"),
        [
            ({}, r"^curves is empty"),
            ({"a": (STEPS[::-1], ELBO, ERROR)}, r"^steps of 'a' must increase"),
            ({"a": (STEPS, ELBO[:2], ERROR)}, r"^ELBO of 'a' must have the shape \(P=3\)"),
            ({"a": (STEPS, ELBO, ERROR * np.nan)}, r"^standard error of 'a' must be finite"),
        ],
    )
    def test_invalid_elbo_curves_raise(self, curves, sentence):
        with pytest.raises(ValueError, match=sentence):
            elbo_figure(curves)


class TestThePosterior:
    def test_posterior_has_panel_for_each_quantity(self):
        draws = torch.randn(400)
        figure = posterior_figure({f"q{i}": draws for i in range(6)}, {f"q{i}": (0.0, 1.0) for i in range(6)})
        assert [axes.get_label() for axes in figure.axes] == [f"q{i}" for i in range(6)]

    def test_reference_moments_are_drawn_as_bar_above_guide(self):
        draws = torch.randn(400)
        (axes,) = posterior_figure({"mu": draws}, {"mu": (3.0, 0.5)}).axes
        ours, _, theirs, middle = axes.lines
        mean, sd = draws.mean().item(), draws.std(correction=0).item()
        assert ours.get_xdata().tolist() == pytest.approx([mean - sd, mean + sd])
        assert theirs.get_xdata().tolist() == [2.5, 3.5]
        assert middle.get_xdata() == [3]
        assert theirs.get_ydata()[0] > ours.get_ydata()[0]

    def test_reference_samples_are_drawn_as_outline_on_same_bins(self):
        (axes,) = posterior_figure({"mu": torch.randn(400)}, {"mu": torch.randn(900) + 3}).axes
        assert len(axes.lines) == 0
        assert sum(not patch.get_fill() for patch in axes.patches) == 1

    @pytest.mark.parametrize("draws", [torch.ones(50), torch.arange(2.0).repeat(9)])
    def test_posterior_of_few_values_can_be_drawn(self, draws):
        (axes,) = posterior_figure({"z": draws}, {"z": draws}).axes
        assert len(axes.patches) > 0

    @pytest.mark.parametrize(
        ("guide", "reference", "sentence"),
        [
            ({}, {}, r"^guide and reference must have the same quantities"),
            ({"mu": torch.zeros(3)}, {"nu": (0.0, 1.0)}, r"got \['mu'\] and \['nu'\]$"),
            ({"mu": torch.zeros(3)}, {"mu": (0.0, 0.0)}, r"^the reference of 'mu' must be"),
            ({"mu": torch.zeros(3, 2)}, {"mu": (0.0, 1.0)}, r"^guide's 'mu' must have the shape \(N\)"),
        ],
    )
    def test_invalid_posterior_raises(self, guide, reference, sentence):
        with pytest.raises(ValueError, match=sentence):
            posterior_figure(guide, reference)


class TestTheTailIndex:
    def test_k_hat_is_drawn_with_interval_over_verdicts(self):
        (axes,) = pareto_k_figure({"one": ParetoK(0.3, 0.1, 1000), "other": ParetoK(0.9, 0.2, 1000)}).axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]
        assert [text.get_text() for text in axes.texts] == ["good", "usable", "unreliable"]
        bars = [bar.get_segments()[0][:, 0].tolist() for bar in axes.collections]
        np.testing.assert_allclose(bars, [[0.104, 0.496], [0.508, 1.292]])

    def test_infinite_k_hat_is_drawn_at_edge(self):
        (axes,) = pareto_k_figure({"none": ParetoK(math.inf, math.inf, 20)}).axes
        low, high = axes.get_xlim()
        assert low < axes.lines[0].get_xdata()[0] < high

    def test_figure_without_k_hat_raises(self):
        with pytest.raises(ValueError, match=r"^there must be k-hats to draw"):
            pareto_k_figure({})


class TestLongNames:
    NAME = f"/home/{'long/' * 60}own.py:model:guide"

    @pytest.mark.parametrize(
        "draw",
        [
            pytest.param(lambda name: elbo_figure({name: (STEPS, ELBO, ERROR)}, evidence=-3.5), id="ELBO"),
            pytest.param(lambda name: pareto_k_figure({name: ParetoK(0.64, 0.1, 4000)}), id="k-hat"),
            pytest.param(lambda name: posterior_figure({name: ELBO, "b": ELBO}, {name: ELBO, "b": ELBO}), id="moments"),
        ],
    )
    def test_long_names_are_shortened_to_fit_page(self, draw):
        figure = draw(self.NAME)
        figure.canvas.draw()
        page = figure.get_window_extent()
        names = [text for text in figure.findobj(Text) if "…" in text.get_text()]
        assert names
        assert all(text.get_text().endswith("ide") for text in names)
        for text in names:
            assert page.x0 <= text.get_window_extent().x0
            assert text.get_window_extent().x1 <= page.x1
        assert all(axes.get_position().width > 0.15 for axes in figure.axes)
