"""Built-in programs: Pyro models with mean-field guides, data, and reference moments of their posteriors."""

from zoo.inference.programs._factors import (
    BernoulliFactor,
    BetaFactor,
    BetaMeanFactor,
    Factor,
    GammaFactor,
    LogNormalFactor,
    MeanFieldGuide,
    NormalFactor,
)
from zoo.inference.programs._program import Program
from zoo.inference.programs._registry import PROGRAMS, find_program

__all__ = [
    "PROGRAMS",
    "BernoulliFactor",
    "BetaFactor",
    "BetaMeanFactor",
    "Factor",
    "GammaFactor",
    "LogNormalFactor",
    "MeanFieldGuide",
    "NormalFactor",
    "Program",
    "find_program",
]
