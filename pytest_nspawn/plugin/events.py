"""What happens to nodes, on whatever thread, told to other plugins on the thread that runs the tests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nspawn.model import CommandResult

if TYPE_CHECKING:
    from pytest_nspawn.machine import Machine


class Events:
    """A queue of hook calls that only the thread which made it delivers; a plugin itself."""

    def __init__(self, hook: Any) -> None:
        self._hook = hook
        self._thread = threading.get_ident()
        self._queue: deque[Callable[[], object]] = deque()
        self._delivering = False

    def boot(self, event: str, machine: Machine) -> None:
        """Queue one of pytest_nspawn_node_started, _ready, _failed and _stopped."""
        self._post(partial(getattr(self._hook, f"pytest_nspawn_node_{event}"), machine=machine))

    def command(self, machine: Machine, result: CommandResult) -> None:
        """Queue pytest_nspawn_command."""
        self._post(partial(self._hook.pytest_nspawn_command, machine=machine, result=result))

    def _post(self, call: Callable[[], object]) -> None:
        self._queue.append(call)
        self.deliver()

    def deliver(self) -> None:
        """Call the hooks that are due, in the order of what happened; elsewhere than on our thread, do nothing."""
        if self._delivering or threading.get_ident() != self._thread:
            return  # a hook that runs a command gets here too: the outer call goes on with that one
        self._delivering = True
        try:
            while self._queue:
                self._queue.popleft()()
        finally:
            self._delivering = False

    def _safe_point(self) -> Generator[None, Any, Any]:
        """Deliver after a phase of a test that went well; one that did not is reported first."""
        result = yield
        self.deliver()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Tell what happened in the background during the set-up."""
        return (yield from self._safe_point())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Tell what happened in the background during the test."""
        return (yield from self._safe_point())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """Tell what happened in the background during the teardown."""
        return (yield from self._safe_point())
