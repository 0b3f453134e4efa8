"""The claim check: a body or result kept elsewhere, and the reference that travels instead.

https://www.enterpriseintegrationpatterns.com/StoreInLibrary.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.protocol.codec import dumps
from amqflow.protocol.headers import BLOB

if TYPE_CHECKING:
    from amqflow.protocol.envelope import Envelope

#: The one key of the JSON object that stands for what is kept elsewhere.
KEY: Final = BLOB


def refer(envelope: Envelope, ref: str) -> Envelope:
    """Return a copy whose body is a reference.

    The body is no array, so that a foreign worker refuses it and runs nothing without arguments.
    """
    return replace(envelope, body=dumps({KEY: ref}), headers={**envelope.headers, BLOB: ref})


def reference_of(envelope: Envelope) -> str | None:
    """Return the reference an envelope travels with; None where its body is its own."""
    ref = envelope.headers.get(BLOB)
    return ref if isinstance(ref, str) else None


def restore(envelope: Envelope, body: bytes) -> Envelope:
    """Return a copy with the body that was kept elsewhere, and without the reference."""
    headers = {name: value for name, value in envelope.headers.items() if name != BLOB}
    return replace(envelope, body=body, headers=headers)


def refer_result(ref: str) -> dict[str, str]:
    """Return what stands in a result's place."""
    return {KEY: ref}


def looks_referred(value: Any) -> bool:
    """Return whether a value has the shape of a reference, ours or by accident."""
    return type(value) is dict and len(value) == 1 and KEY in value


def result_reference(value: Any) -> str | None:
    """Return the reference in a result's place; None where the value is the result itself."""
    ref = value[KEY] if looks_referred(value) else None
    return ref if isinstance(ref, str) else None
