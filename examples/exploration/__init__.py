"""Explorations of tabular Q-learning, compared by their exact regret."""

from examples.exploration.plots import regret_curves
from examples.exploration.regret import SCHEDULES, Regret, learning_regret, summarize, write_csv

__all__ = ["SCHEDULES", "Regret", "learning_regret", "regret_curves", "summarize", "write_csv"]
