"""The five fields of a crontab: Celery's notations, read into sets of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, TypeAlias

from amqflow.errors import ScheduleError

#: What Celery takes for a field: a number, a pattern, or several numbers.
Cronspec: TypeAlias = "int | str | Iterable[int]"

_PART: Final = re.compile(r"(?P<range>\*|\w+(?:-\w+)?)(?:/(?P<step>\w*))?")

_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, the numbers it may hold, and words for them."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    #: Whether 7 means Sunday too, as in cron.
    seven: bool = False

    def read(self, spec: Cronspec) -> frozenset[int]:
        """Return the numbers a field names.

        Raises:
            ScheduleError: It names none, or one that is not possible here.
        """
        if isinstance(spec, str):
            return frozenset(number for part in spec.split(",") for number in self._part(part))
        if isinstance(spec, Iterable):
            found = frozenset(self._number(item) for item in spec)
            if not found:
                raise ScheduleError(f"{self.name}: no number is given; write '*' for all of them")
            return found
        return frozenset((self._number(spec),))

    def _part(self, part: str) -> list[int]:
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ScheduleError(f"{self._wrong(part)}; write a number, '1-5', '*/10' or a list")
        numbers = self._range(match["range"])
        if match["step"] is None:
            return numbers
        if not match["step"].isascii() or not match["step"].isdigit() or int(match["step"]) == 0:
            raise ScheduleError(f"{self._wrong(part)}; a step is a number above 0, as in '*/10'")
        if match["range"] != "*" and "-" not in match["range"]:
            raise ScheduleError(
                f"{self._wrong(part)}; a step needs a range, as in "
                f"'{match['range']}-{self.high}/{match['step']}'"
            )
        return numbers[:: int(match["step"])]

    def _range(self, text: str) -> list[int]:
        if text == "*":
            return list(range(self.low, self.high + 1))
        first, dash, last = text.partition("-")
        start = self._number(first, text)
        if not dash:
            return [start]
        end = self._number(last, text)
        if self.seven and last == "7":
            return [*range(start, 7), 0]  # 5-7: Friday to Sunday
        if end < start:  # 22-5 goes round midnight, fri-mon round the week, as in Celery
            return [*range(start, self.high + 1), *range(self.low, end + 1)]
        return list(range(start, end + 1))

    def _number(self, given: object, within: object = None) -> int:
        shown = given if within is None else within
        if isinstance(given, str):
            number = int(given) if given.isascii() and given.isdigit() else self._word(given)
        elif isinstance(given, int) and not isinstance(given, bool):
            number = given
        else:
            raise ScheduleError(f"{self._wrong(shown)}; write a number or a pattern")
        if self.seven and number == 7:  # noqa: PLR2004 - cron's second Sunday
            return 0
        if not self.low <= number <= self.high:
            raise ScheduleError(f"{self._wrong(shown)}; it goes from {self.low} to {self.high}")
        return number

    def _word(self, text: str) -> int:
        """Return the number of a day's or month's name, or of its first three letters."""
        lowered = text.lower()
        for index, word in enumerate(self.words):
            if lowered in {word, word[:3]}:
                return index + self.low
        near = get_close_matches(lowered, [*self.words, *(word[:3] for word in self.words)], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it goes from {self.low} to {self.high}"
        raise ScheduleError(f"{self._wrong(text)}; {hint}")

    def _wrong(self, given: object) -> str:
        return f"{self.name}={given!r} cannot be read"


MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY_OF_WEEK: Final = Field("day_of_week", 0, 6, _DAYS, seven=True)
DAY_OF_MONTH: Final = Field("day_of_month", 1, 31)
MONTH_OF_YEAR: Final = Field("month_of_year", 1, 12, _MONTHS)


def written(spec: Cronspec) -> str:
    """Return a field as text, numbers in order."""
    if isinstance(spec, str):
        return "".join(spec.split())
    if isinstance(spec, int):
        return str(spec)
    return ",".join(map(str, sorted(spec)))
