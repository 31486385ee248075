"""Figures: a median with its spread, a ratio of each round, and a target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Sense = Literal["≤", "≥", "="]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table.

    Parameters
    ----------
    value, floor : float | None
        Medians over the rounds, in `unit`; a figure without a floor is compared with its target directly.
    ratio : float | None
        The median of the ratios of the rounds: value to floor, or as `title` says.
    low, high : float
        The smallest and the largest ratio, or value if there is no ratio.
    """

    key: str
    title: str
    unit: str
    value: float
    floor: float | None = None
    ratio: float | None = None
    low: float
    high: float
    sense: Sense
    target: float
    rounds: int = 1

    @property
    def measured(self) -> float:
        """The number that is compared with the target."""
        return self.value if self.ratio is None else self.ratio

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        if self.sense == "≤":
            return self.measured <= self.target
        if self.sense == "≥":
            return self.measured >= self.target
        return self.measured == self.target


def against(
    key: str,
    title: str,
    unit: str,
    values: Sequence[float],
    floors: Sequence[float],
    *,
    sense: Sense,
    target: float,
    ratios: Sequence[float] = (),
) -> Figure:
    """Make a figure from rounds that each measured a value and its floor."""
    taken = list(ratios) or [value / floor for value, floor in zip(values, floors, strict=True)]
    return Figure(
        key=key, title=title, unit=unit, value=statistics.median(values), floor=statistics.median(floors),
        ratio=statistics.median(taken), low=min(taken), high=max(taken), sense=sense, target=target, rounds=len(taken),
    )  # fmt: skip


def alone(key: str, title: str, unit: str, values: Sequence[float], *, sense: Sense, target: float) -> Figure:
    """Make a figure without a floor."""
    return Figure(
        key=key, title=title, unit=unit, value=statistics.median(values), low=min(values), high=max(values),
        sense=sense, target=target, rounds=len(values),
    )  # fmt: skip


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the best line through points on logarithmic axes: 1 is linear growth."""
    logs = [(math.log(size), math.log(value)) for size, value in points]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value below which a given percentage of the values are."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
