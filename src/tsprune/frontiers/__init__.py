"""Frontiers: time against loss of everything that a model can be deployed as, and which of it is worth it."""

from tsprune.frontiers.frontier_table import ADVICE, FRONTIER, Frontier
from tsprune.frontiers.measure_frontier import frontier

__all__ = ["ADVICE", "FRONTIER", "Frontier", "frontier"]
