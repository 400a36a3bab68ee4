"""A mapping that can be a dictionary's key: what the values of `model.py` and `naming.py` are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

K = TypeVar("K", bound=int | str)
V_co = TypeVar("V_co", covariant=True)


class FrozenMap(Mapping[K, V_co]):
    """An immutable mapping, numbers before names and each sorted; its repr has the keys only."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[K, V_co] | None = None) -> None:
        given = dict(entries or {})
        self._entries: dict[K, V_co] = {key: given[key] for key in sorted(given, key=sort_key)}

    def __getitem__(self, key: K) -> V_co:
        return self._entries[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(tuple(self._entries.items()))

    def __repr__(self) -> str:
        return f"<{', '.join(map(str, self._entries))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._entries,)


def sort_key(key: int | str) -> tuple[bool, Any]:
    """Order of keys of both types, which do not compare: numbers first."""
    return isinstance(key, str), key
