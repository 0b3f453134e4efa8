"""kombu's compressions, with a bound: a body is inflated only as far as the limit.

Names and formats are those of ``kombu/compression.py``: ``application/x-gzip`` holds a zlib
stream, whatever its name says.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from amqflow.errors import EncodeError, Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

ZLIB: Final = "application/x-gzip"
BZIP2: Final = "application/x-bz2"
LZMA: Final = "application/x-lzma"
ZSTD: Final = "application/zstd"

_ALIASES: Final = {
    "zlib": ZLIB,
    "gzip": ZLIB,
    "bzip2": BZIP2,
    "bzip": BZIP2,
    "lzma": LZMA,
    "xz": LZMA,
    "zstd": ZSTD,
    "zstandard": ZSTD,
}

#: What an lzma stream may ask for beside its output; its largest preset needs 65 MiB.
_LZMA_MEMORY: Final = 128 * 1024 * 1024


class _Inflater(Protocol):
    """The standard library's decompressor objects, as far as they agree."""

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def compress(body: bytes, name: str) -> tuple[bytes, str]:
    """Return the compressed body and the value of the ``compression`` header.

    Args:
        body: What to compress.
        name: ``zlib``, ``gzip``, ``bzip2``, ``lzma``, ``xz``, ``zstd``, or a content type.

    Raises:
        EncodeError: The compression is unknown, or needs a package that is not installed.
    """
    kind = _ALIASES.get(name, name)
    if kind == ZSTD:
        return _zstd(EncodeError).compress(body), kind
    compressor = _COMPRESSORS.get(kind)
    if compressor is None:
        raise EncodeError(f"unknown compression {name!r}; known are {', '.join(sorted(_ALIASES))}")
    return compressor(body), kind


def decompress(body: bytes, name: str, limit: int) -> bytes:
    """Return the inflated body.

    Args:
        body: The compressed body.
        name: The value of the ``compression`` header, or an alias.
        limit: Bytes at which to stop.

    Raises:
        Undecodable: The compression is unknown or not installed, the data broken or cut short,
            or more than ``limit`` bytes come out.
    """
    kind = _ALIASES.get(name, name)
    if kind == ZSTD:
        start: Callable[[], _Inflater] = _zstd(Undecodable).ZstdDecompressor
    elif kind in _INFLATERS:
        start = _INFLATERS[kind]
    else:
        raise Undecodable(f"the body is compressed as {name!r:.80}, which is not known here")
    try:
        return _inflated(start, body, limit)
    except Undecodable:
        raise
    except Exception as exc:
        # zlib.error, OSError, LZMAError, ZstdError: each library has its own.
        raise Undecodable(f"the body is not {kind} data: {exc}") from exc


def _inflated(start: Callable[[], _Inflater], body: bytes, limit: int) -> bytes:
    parts = []
    size = 0
    while body:  # bzip2, xz and zstd allow several streams, one behind the other
        inflater = start()
        part = inflater.decompress(body, limit - size + 1)
        size += len(part)
        if size > limit:
            raise Undecodable(f"the body inflates to more than {limit} bytes")
        parts.append(part)
        if not inflater.eof:
            raise Undecodable("the compressed body ends too early")
        body = inflater.unused_data
    return b"".join(parts)


def _zstd(error: type[Exception]) -> Any:
    """Return the module for zstd: Python 3.14's own, or its backport, as kombu does."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise error("zstd needs Python 3.14 or the package backports.zstd: pip install amqflow[zstd]")


def _lzma_inflater() -> _Inflater:
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)


_COMPRESSORS: Final[dict[str, Callable[[bytes], bytes]]] = {
    ZLIB: zlib.compress,
    BZIP2: bz2.compress,
    LZMA: lzma.compress,
}
_INFLATERS: Final[dict[str, Callable[[], _Inflater]]] = {
    ZLIB: zlib.decompressobj,
    BZIP2: bz2.BZ2Decompressor,
    LZMA: _lzma_inflater,
}
