"""Where the files of an embedded stream lie, and which of them may be missing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from retrodict.core.errors import IntegrityError
from retrodict.stores.streams._frames import HEADER_SIZE, unpack_header
from retrodict.stores.streams._head import HEAD_NAME, Head

_SEGMENT = re.compile(r"(\d{20})\.seg")


def segment_name(first: int) -> str:
    """File name of the segment that begins with this offset; sorts by offset."""
    return f"{first:020d}.seg"


def segment_firsts(folder: Path) -> list[int]:
    """First offsets of the segments there are, ascending."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(_SEGMENT.fullmatch, names) if match)


def open_segment(folder: Path, stream: str, first: int, flags: int) -> int:
    """Descriptor of a segment whose header was checked."""
    where = f"stream {stream}, segment {segment_name(first)}"
    try:
        descriptor = os.open(folder / segment_name(first), flags)
    except FileNotFoundError as error:
        raise IntegrityError(
            "a segment that the stream needs must be there",
            where=where,
            remedy="Restore it from a copy",
            got="no such file",
        ) from error
    if unpack_header(os.pread(descriptor, HEADER_SIZE, 0)) != first:
        os.close(descriptor)
        raise IntegrityError(
            "the header of a segment must be intact and its own",
            where=where,
            remedy="Restore the segment from a copy",
            got="a damaged header, or that of another segment",
        )
    return descriptor


def check_base(folder: Path, stream: str, firsts: list[int], head: Head | None) -> Head | None:
    """Position up to which the last segment was acknowledged for certain; None for a stream without segments.

    Raises
    ------
    IntegrityError
        If segments or bytes that were acknowledged are missing.
    """
    if not firsts:
        if head is not None and head.offset > 0:
            raise _missing(stream, f"offset {head.offset}", "no segment")
        return None
    last = firsts[-1]
    # A segment is begun only after all before it was acknowledged, so its first offset is certain by itself.
    if head is None or last > head.first:
        return Head(last, HEADER_SIZE, last, current=False)
    size = (folder / segment_name(last)).stat().st_size
    if last < head.first or size < head.position:
        raise _missing(
            stream,
            f"byte {head.position} of segment {segment_name(head.first)}",
            f"byte {size} of {segment_name(last)}",
        )
    return head


def _missing(stream: str, acknowledged: str, end: str) -> IntegrityError:
    return IntegrityError(
        f"the files must hold every record that was acknowledged, up to {acknowledged}, and end before",
        where=f"stream {stream}",
        got=end,
        remedy=f"Restore the stream from a copy, or remove its file {HEAD_NAME!r} to go on without the missing records",
    )
