"""The numbers that were seen, by measure, contestant and metric."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Results:
    """Every sample of a run, in the order it was taken."""

    def __init__(self) -> None:
        """Start empty."""
        self._samples: dict[tuple[str, str, str], list[float]] = defaultdict(list)

    def add(self, measure: str, contestant: str, **metrics: float) -> None:
        """Add one sample of each metric."""
        for metric, value in metrics.items():
            self._samples[measure, contestant, metric].append(value)

    def samples(self, measure: str, contestant: str, metric: str) -> list[float]:
        """Return the samples, oldest first; empty where there are none."""
        return self._samples.get((measure, contestant, metric), [])

    def median(self, measure: str, contestant: str, metric: str) -> float | None:
        """Return the median over the rounds; None where nothing was measured."""
        found = self.samples(measure, contestant, metric)
        return statistics.median(found) if found else None

    def measured(self, measure: str) -> bool:
        """Say whether anything of this measure was run."""
        return any(name == measure for name, _, _ in self._samples)

    def ratio(self, measure: str, metric: str, ours: str, theirs: str) -> float | None:
        """Return the median of the ratios, round by round: a noisy round troubles both sides."""
        pairs = zip(
            self.samples(measure, ours, metric), self.samples(measure, theirs, metric), strict=False
        )
        ratios = [one / other for one, other in pairs]
        return statistics.median(ratios) if ratios else None

    def as_json(self) -> dict[str, Any]:
        """Return all samples, nested by measure, contestant and metric."""
        nested: dict[str, Any] = {}
        for (measure, contestant, metric), values in self._samples.items():
            nested.setdefault(measure, {}).setdefault(contestant, {})[metric] = values
        return nested

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Go through the names of what was measured."""
        return iter(self._samples)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]
