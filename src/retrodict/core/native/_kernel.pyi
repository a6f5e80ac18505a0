from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Self

class Program:
    def __new__(cls, words: bytes, layout: bytes, names: tuple[str, ...], day: Callable[[int], date], /) -> Self: ...
    def __call__(
        self, block: bytes | memoryview, at: int, values: dict[str, Any], expired: set[str], settled: bool, /
    ) -> int: ...

def columns(
    records: Sequence[bytes], names: tuple[bytes, ...], kinds: bytes, /
) -> list[tuple[int, int, bytearray, bytearray, bytearray]] | None: ...
def cut_frames(data: bytes, at: int, most: int, /) -> tuple[list[bytes], int]: ...
def assemble(
    rules: bytes,
    layout: bytes,
    bare: bytes,
    blobs: list[bytes | None],
    rows: Any,
    parts: Any,
    texts: tuple[tuple[Any, Any], ...],
    /,
) -> tuple[list[bytes], list[int]]: ...
def gather(values: Sequence[bytes | None], start: int, size: int, /) -> bytearray: ...
def together(rows: Any, edges: list[int], extreme: int, floats: bytes, /) -> bytes: ...
