"""The line that says what a node waits for while it boots."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pexpect
import pytest

from pytest_nspawn.plugin.progress import Progress

from .conftest import Project


class Screen:
    """A terminal whose writes can be waited for."""

    column = 12
    width = 60

    def __init__(self) -> None:
        self.text = ""
        self._written = threading.Condition()

    def write(self, text: str) -> None:
        with self._written:
            self.text += text
            self._written.notify_all()

    def wait_for(self, text: str) -> None:
        with self._written:
            assert self._written.wait_for(lambda: text in self.text, timeout=60), self.text

    def close(self) -> None:
        pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def progress(screen: Screen, clock: Clock) -> Iterator[Progress]:
    made = Progress(screen, clock)
    yield made
    made.close()


def test_a_boot_of_less_than_a_second_shows_nothing(progress: Progress, screen: Screen, clock: Clock) -> None:
    progress.started(1, "a", lambda: "Starting...")
    clock.now = 0.9
    assert progress.line() == ""
    progress.ended(1)
    progress.close()
    assert screen.text == ""


def test_a_longer_boot_shows_what_it_waits_for_and_leaves_no_trace(
    progress: Progress, screen: Screen, clock: Clock
) -> None:
    progress.started(1, "a", lambda: "Starting nginx...")
    progress.started(2, "b", lambda: "")
    clock.now = 3.0
    screen.wait_for("\n\r\x1b[Ka: Starting nginx... (3 s) | b: starting (3 s)")
    progress.ended(1)
    progress.ended(2)
    screen.wait_for("\r\x1b[K\x1b[A\x1b[12C")


def test_a_pause_takes_the_line_away_and_gives_it_back(
    progress: Progress, screen: Screen, clock: Clock
) -> None:
    progress.started(1, "a", lambda: "Starting nginx...")
    clock.now = 2.0
    screen.wait_for("nginx")
    with progress.paused():
        assert screen.text.endswith("\r\x1b[K\x1b[A\x1b[12C")
        screen.text = ""
        clock.now = 4.0
    screen.wait_for("(4 s)")


def test_what_a_node_says_cannot_drive_the_terminal(progress: Progress, screen: Screen, clock: Clock) -> None:
    progress.started(1, "a", lambda: "\x1b[2J" + "x" * 100)
    clock.now = 2.0
    screen.wait_for("a: ?[2Jxxx")
    assert len(screen.text.partition("\x1b[K")[2].partition("\r")[0]) == 59


def test_without_a_terminal_there_is_no_thread() -> None:
    progress = Progress(None)
    progress.started(1, "a", lambda: "")
    assert "nspawn-progress" not in [thread.name for thread in threading.enumerate()]
    progress.ended(1)
    progress.close()


def test_on_a_real_terminal_through_all_capturing(project: Project) -> None:
    project.write(
        "import threading\nfrom pathlib import Path\n@pytest.mark.nodes(slow=Node(), start=False)\n"
        "def test_it(slow, nodes, pytestconfig):\n"
        "    slow._request.on_boot('started', slow)\n"
        "    while not Path('seen').exists():\n"
        "        threading.Event().wait(0.02)\n"
        "    slow._request.on_boot('ready', slow)\n"
    )
    child = pexpect.spawn(
        sys.executable,
        ["-m", "pytest", "-p", "no:cacheprovider"],
        cwd=str(project.pytester.path),
        timeout=60,
        encoding="utf-8",
    )
    child.expect(r"slow: Starting slow\.\.\. \(\d+ s\)")
    (project.pytester.path / "seen").touch()
    child.expect_exact("\x1b[A")
    child.expect("1 passed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
