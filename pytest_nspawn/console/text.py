"""A terminal's bytes as plain text: pure. console_codes(4); ECMA-48, "Control functions"."""

from __future__ import annotations

import codecs
import re

LINE_LIMIT = 1 << 16
"""Characters after which a line that does not end is taken as one."""

_HELD_LIMIT = 1 << 12

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, systemd's context marks
    r"|[PX^_][^\x1b]*\x1b\\"  # DCS, SOS, PM, APC
    r"|[ -/]+[0-~]"  # character sets
    r"|[0-OQ-WYZ\\`-~])"  # single ones
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)\Z")
_INVISIBLE = {ord(character): None for character in "\0\a\r\x0e\x0f\x1b"}


class Plain:
    """Decodes pieces of what a terminal is sent, without escape sequences and carriage returns."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def take(self, data: bytes, *, final: bool = False) -> str:
        """The text of the next piece; the beginning of a sequence is held back until its end comes."""
        text = _SEQUENCE.sub("", self._held + self._decoder.decode(data, final))
        unfinished = _UNFINISHED.search(text) if not final else None
        self._held = ""
        if unfinished is not None and len(unfinished[0]) <= _HELD_LIMIT:
            text, self._held = text[: unfinished.start()], unfinished[0]
        return text.translate(_INVISIBLE)


class Lines:
    """Cuts pieces of what a terminal is sent into plain lines."""

    def __init__(self) -> None:
        self._plain = Plain()
        self._rest = ""

    def take(self, data: bytes, *, final: bool = False) -> list[str]:
        """The lines that the next piece ends; `final`: and what is left."""
        *lines, self._rest = (self._rest + self._plain.take(data, final=final)).split("\n")
        if self._rest and (final or len(self._rest) >= LINE_LIMIT):
            lines.append(self._rest)
            self._rest = ""
        return lines


def plain(data: bytes) -> str:
    """All that a terminal was sent, as plain text."""
    return Plain().take(data, final=True)
