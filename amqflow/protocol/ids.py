"""Where task ids come from: random ones, and ones a rerun makes again."""

from __future__ import annotations

from hashlib import sha1
from os import urandom
from typing import Final
from uuid import UUID

#: The namespace of derived ids; any fixed UUID would do, this one is theirs for good.
_DERIVED: Final = UUID("6f1c0a52-54c6-5d1c-8d6a-0f0d5b6f9a11").bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_id() -> str:
    """Return the text of a new random UUID (RFC 9562, version 4).

    Written out because ``str(uuid4())`` costs three times as much, on the path of every call.
    """
    digits = urandom(16).hex()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
        f"{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
    )


def derived_id(parent_id: str, kind: str, ordinal: int = 0) -> str:
    """Return the id of what a task sends while it is settled: the same on every rerun.

    A UUID of version 5 (RFC 9562), written out as :func:`new_id` is: a chord takes one a member.

    Args:
        parent_id: The id of the task that is settled; any text, not only a UUID.
        kind: What is sent: ``"link"``, ``"chain"``, ``"body"`` … Without a colon.
        ordinal: Which one of its kind, from 0.
    """
    name = f"{ordinal}:{kind}:{parent_id}".encode()
    digits = sha1(_DERIVED + name, usedforsecurity=False).hexdigest()
    return (
        f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-"
        f"{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
    )
