"""Durations and sizes as people write them: ``500ms``, ``1h``, ``64KiB``; back into words too."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

#: Milliseconds of each unit, the largest first. A month is no unit: nobody agrees on its length.
DURATIONS: Final = {
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}

#: Bytes of each unit: decimal ones, and binary ones with an ``i`` (IEC 80000-13).
SIZES: Final = {
    "TiB": 1 << 40,
    "TB": 10**12,
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "kB": 10**3,
    "KB": 10**3,
    "B": 1,
}

#: What a duration and a size look like; the JSON Schema shows these to editors.
DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(w|d|h|ms|m|s))+$"
SIZE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)? ?(TiB|TB|GiB|GB|MiB|MB|KiB|kB|KB|B)$"

_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(w|d|h|ms|m|s)", re.ASCII)

#: Seconds. RabbitMQ refuses a ``message_ttl`` or ``expires`` above ten years (tried on 3.10.8).
MAX_DURATION: Final = 3650 * 86_400

MAX_BYTES: Final = (1 << 63) - 1


def parse_duration(value: object) -> float:
    """Return a duration in seconds.

    Args:
        value: ``"500ms"``, ``"10s"``, ``"5m"``, ``"1h"``, ``"2d"``, ``"1w"``, sums of these
            (``"1h30m"``), or 0, which means the same in every unit.

    Raises:
        ValueError: It is none of these; the message says what to write.
    """
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        raise ValueError(_unit_missing(value))
    if not isinstance(value, str):
        raise ValueError("is no duration; write 500ms, 10s, 5m, 1h, 2d or 1w")  # noqa: TRY004
    text = value.strip()
    if not re.fullmatch(DURATION_PATTERN, text):
        if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            raise ValueError(_unit_missing(text))
        raise ValueError("is no duration; write 500ms, 10s, 5m, 1h, 2d or 1w")
    # Fractions: 0.1 s and three weeks have to add up to whole milliseconds.
    exact = sum(Fraction(number) * DURATIONS[unit] for number, unit in _DURATION_PART.findall(text))
    if exact.denominator != 1:
        raise ValueError("is finer than a millisecond, the broker's unit; write whole milliseconds")
    if exact > MAX_DURATION * 1000:
        raise ValueError(
            "is longer than the 3650 days that RabbitMQ takes; leave it out to mean for ever"
        )
    return int(exact) / 1000


def _unit_missing(number: object) -> str:
    return f"needs a unit: write {number}s, or {number}ms if milliseconds are meant"


def parse_size(value: object) -> int:
    """Return a size in bytes.

    Args:
        value: ``"64KiB"``, ``"10MB"``, or a whole number of bytes.

    Raises:
        ValueError: It is neither; the message says what to write.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number, unit = str(value), "B"
    elif isinstance(value, str) and re.fullmatch(SIZE_PATTERN, value.strip()):
        found = re.match(r"([\d.]+) ?(\w+)", value.strip())
        assert found is not None
        number, unit = found.groups()
    else:
        raise ValueError("is no size; write 500kB, 64KiB, 10MB, or a number of bytes")
    size = Fraction(number) * SIZES[unit]
    if size.denominator != 1:
        raise ValueError("is no whole number of bytes")
    if not 0 <= size <= MAX_BYTES:
        raise ValueError("is out of range; the broker takes 0 to 9223372036854775807 bytes")
    return int(size)


def write_duration(seconds: float) -> str:
    """Return a duration as :func:`parse_duration` reads it, in its largest whole unit: ``90m``."""
    milliseconds = round(seconds * 1000)
    for unit, size in DURATIONS.items():
        count, rest = divmod(milliseconds, size)
        if count and not rest:
            return f"{count}{unit}"
    return "0s"


def write_size(size: int) -> str:
    """Return a size as :func:`parse_size` reads it: ``64KiB``, ``10MB``, else in bytes."""
    for unit, one in SIZES.items():
        if size and size % one == 0:
            return f"{size // one}{unit}"
    return "0B"
