"""Figures: a median with its spread, a ratio that is taken round by round, a target that is met or not."""

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
        Medians over the rounds, in `unit`; a figure without a floor is judged by itself.
    ratio : float | None
        The median of the rounds' own ratios, value to floor (or what `title` says).
    low, high : float
        The least and the greatest of what is judged: the ratio, or the value when there is none.
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
        """What the target is about."""
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
    """Make the figure of rounds in which a value and its floor were taken one after the other."""
    taken = list(ratios) or [value / floor for value, floor in zip(values, floors, strict=True)]
    return Figure(
        key=key, title=title, unit=unit, value=statistics.median(values), floor=statistics.median(floors),
        ratio=statistics.median(taken), low=min(taken), high=max(taken), sense=sense, target=target, rounds=len(taken),
    )  # fmt: skip


def alone(key: str, title: str, unit: str, values: Sequence[float], *, sense: Sense, target: float) -> Figure:
    """Make a figure that is judged without a floor."""
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
