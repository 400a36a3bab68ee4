"""Which fixture a test gets under a name: the one place that reads what pytest keeps to itself.

Needed, because a node must neither shadow another plugin's fixture nor be shadowed without a word. `getfixturedefs` and
`_fixtureinfo` are the same in pytest 9.1 and 9.2; the newest pytest is tried in CI.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_nspawn.plugin import fixtures


class Lookup:
    """Fixtures as one item sees them, or as the session does: those of plugins, and of the root's conftest."""

    def __init__(self, node: pytest.Session | pytest.Item) -> None:
        self._node = node
        self._info: Any = getattr(node, "_fixtureinfo", None)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The fixtures that a test function names as its arguments."""
        return self._info.argnames if self._info is not None else ()

    @property
    def closure(self) -> tuple[str, ...]:
        """The fixtures that a test needs, those that its fixtures need with them."""
        return tuple(self._info.names_closure) if self._info is not None else ()

    def definitions(self, name: str) -> Sequence[pytest.FixtureDef[Any]]:
        """The fixtures of a name; the last is the one that a test gets, the others are what it overrides."""
        if isinstance(self._node, pytest.Item):
            return self._info.name2fixturedefs.get(name, ()) if self._info is not None else ()
        return self._of_session(name)

    def _of_session(self, name: str) -> Sequence[pytest.FixtureDef[Any]]:
        session = self._node.session
        found: Sequence[pytest.FixtureDef[Any]] | None = session._fixturemanager.getfixturedefs(name, session)  # noqa: SLF001
        return found or ()

    def is_registered(self, name: str) -> bool:
        """Whether one of our fixtures has the name."""
        return any(self.is_ours(each) for each in self._of_session(name))

    def is_ours(self, definition: pytest.FixtureDef[Any]) -> bool:
        """Whether a fixture comes from this plugin."""
        return definition.func.__module__ == fixtures.__name__

    def is_node_fixture(self, name: str) -> bool:
        """Whether a test gets a node, or its nodes, under a name."""
        found = self.definitions(name)
        return bool(found) and self.is_ours(found[-1]) and name != "nspawn"

    def is_foreign(self, name: str) -> bool:
        """Whether a test gets another plugin's fixture under a name."""
        found = self.definitions(name)
        if not found or self.is_ours(found[-1]) or self.is_from_conftest(found[-1]):
            return False
        return any(found[-1] is each for each in self._of_session(name))

    def is_from_conftest(self, definition: pytest.FixtureDef[Any]) -> bool:
        """Whether a fixture stands in a conftest file: then it is the user's own, wherever pytest registers it."""
        for name, plugin in self._node.config.pluginmanager.list_name_plugin():
            if os.path.basename(name) == "conftest.py" and plugin is not None:
                stands_there = (getattr(each, "__wrapped__", None) for each in list(vars(plugin).values()))
                if any(each is definition.func for each in stands_there):
                    return True
        return False

    def describe(self, name: str) -> str:
        """Whose fixture a test gets under a name: `_pytest.tmpdir`, or a line of the user's file."""
        found = self.definitions(name)
        if not found:
            return "the test's own parameters"
        func = found[-1].func
        module = inspect.getmodule(func)
        if self.is_foreign(name) and module is not None:
            return module.__name__
        code = inspect.unwrap(func).__code__
        path = os.path.relpath(code.co_filename, self._node.config.rootpath)
        return f"{path}:{code.co_firstlineno}"
