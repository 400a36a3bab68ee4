"""What stands in for a screen: the console for tty 1, an X server of the node's own for windows."""

from __future__ import annotations

import re

from pytest_nspawn.errors import ConfigError, UnsupportedError
from pytest_nspawn.machine.commands import Commands
from pytest_nspawn.machine.context import LIMIT, Context, hidden
from pytest_nspawn.machine.ports import Ports
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden

_LINES = 50
"""Lines of the console, as high as the sandbox makes it."""

_X_SOCKET = "/tmp/.X11-unix/X0"
_WINDOWS = "export DISPLAY=${DISPLAY:-:0}; xwininfo -root -tree"
_WINDOW = re.compile(r'^\s*0x[0-9a-f]+ "(?P<name>.*)": \(', re.MULTILINE)


class Screen:
    """Reads one node's console as a text terminal, and its X server's windows."""

    def __init__(self, context: Context, commands: Commands, ports: Ports) -> None:
        self._context = context
        self._commands = commands
        self._ports = ports

    def tty_text(self, tty: str, method: str = "get_tty_text") -> str:
        """What stands on a text terminal: the last lines of the console for the first."""
        if str(tty).removeprefix("/dev/").removeprefix("tty") != "1":
            raise UnsupportedError(
                node=self._context.node,
                method=method,
                reason=f"a container has no tty {tty}: its console stands in for tty 1, and there is no other",
                way_out='use tty "1", or a command that asks the program',
            )
        self._context.container.wait_ready()
        return "\n".join(self._context.container.console.tail().splitlines()[-_LINES:])

    def dump(self, tty: str) -> None:
        """Log what stands there."""
        self._context.log.info("tty %s:\n%s", tty, self.tty_text(tty, "dump_tty_contents"))

    def wait_for_tty(self, tty: str, regexp: str, timeout: Seconds | None) -> None:
        """Wait until what stands there matches."""
        pattern = self._pattern(regexp, "wait_until_tty_matches")
        text = ""

        def attempt(_is_last: bool) -> bool:
            nonlocal text
            text = self.tty_text(tty, "wait_until_tty_matches")
            return pattern.search(text) is not None

        what = f"waiting for {regexp!r} to appear on tty {tty}"
        self._context.retry(attempt, timeout=timeout, what=what, last=lambda: text[-1000:])

    def wait_for_x(self, timeout: Seconds | None) -> None:
        """Wait until an X server takes connections."""
        with self._context.nested("waiting for the X11 server"):
            self._ports.wait_unix(_X_SOCKET, timeout, datagram=False)

    def windows(self) -> list[str]:
        """The names of all windows. Raises CommandFailed where nothing can tell them."""
        return _WINDOW.findall(self._commands.succeed([_WINDOWS], None))

    def wait_for_window(self, regexp: str, timeout: Seconds | None) -> None:
        """Wait until a window's name matches."""
        pattern = self._pattern(regexp, "wait_for_window")
        names: list[str] = []

        def attempt(_is_last: bool) -> bool:
            result = self._commands.run(_WINDOWS, timeout=60, polled=True)
            found = _WINDOW.findall(result.stdout)
            names[:] = found or [result.stderr.strip()[-200:] or "(none)"]
            return any(pattern.search(name) for name in found)

        what = f"waiting for a window named {regexp!r}"
        self._context.retry(
            attempt, timeout=timeout, what=what, last=lambda: ", ".join(names), interval=(0.02, 0.5)
        )

    def _pattern(self, regexp: str, method: str) -> re.Pattern[str]:
        try:
            return re.compile(regexp)
        except re.error as error:
            problem = f"{method}: no regular expression ({error})"
            raise ConfigError(problem=problem, node=self._context.node, value=regexp) from error


class ScreenMethods:
    """The machine's methods about what is to be seen."""

    _screen: Screen

    def get_tty_text(self, tty: str) -> str:
        """What stands on a text terminal; the console stands in for tty 1, and there is no other."""
        return self._screen.tty_text(tty)

    def wait_until_tty_matches(self, tty: str, regexp: str, timeout: Seconds | None = LIMIT) -> None:
        """Wait until what stands on a text terminal matches. Raises TimeoutExceeded."""
        self._screen.wait_for_tty(tty, regexp, timeout)

    def dump_tty_contents(self, tty: str) -> None:
        """Log what stands on a text terminal."""
        self._screen.dump(tty)

    def wait_for_x(self, timeout: Seconds | None = LIMIT) -> None:
        """Wait until an X server of the node takes connections. Raises TimeoutExceeded."""
        self._screen.wait_for_x(timeout)

    def get_window_names(self) -> list[str]:
        """The names of the X server's windows; the node has to have xwininfo. Raises CommandFailed."""
        return self._screen.windows()

    def wait_for_window(self, regexp: str, timeout: Seconds | None = LIMIT) -> None:
        """Wait until a window's name matches. Raises TimeoutExceeded."""
        self._screen.wait_for_window(regexp, timeout)
