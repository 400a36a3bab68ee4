"""The console over a pseudo-terminal whose other side is the test."""

from __future__ import annotations

import errno
import os
import queue
import re
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from io import FileIO

import pytest

import pytest_nspawn.console
from pytest_nspawn.console import Console, Keys
from pytest_nspawn.console.log import Log
from pytest_nspawn.console.text import LINE_LIMIT, Lines, Plain, plain
from pytest_nspawn.errors import ConfigError, NotRunningError, TimeoutExceeded
from pytest_nspawn.timing import Deadline
from tests.waiting import wait_for

GREEN = b"\x1b[0;32mOK\x1b[0m"


class Node:
    """The node's side of a terminal, raw as nspawn sets it."""

    def __init__(self) -> None:
        self.master, self.terminal = os.openpty()
        tty.setraw(self.terminal)

    def prints(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.terminal, data) :]

    def hears(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.terminal, size - len(data))
        return data

    def close(self) -> None:
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture
def console(node: Node) -> Iterator[Console]:
    console = Console(node.master, "web")
    yield console
    console.close()


# Plain text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"[  " + GREEN + b"  ] Started\r\n", "[  OK  ] Started\n"),
        (b"\x1b]0;title\x07a\x1b]3008;start=1\x1b\\b", "ab"),
        (b"\x1bP1$r0m\x1b\\a\x1b(Bb\x1b7c\x1b=d\x1bMe", "abcde"),
        (b"\x1b[?2004h\x1b[38;5;12m\x1b[1Kx", "x"),
        (b"a\rb\r\n\0\a", "ab\n"),
        ("grün\n".encode(), "grün\n"),
        (b"bad \xff\xfe bytes", "bad \ufffd\ufffd bytes"),
        (b"cut \xc3", "cut \ufffd"),
        (b"\x1b\n\x1b[1", "\n[1"),
    ],
)
def test_a_terminals_bytes_become_plain_text(data: bytes, text: str) -> None:
    assert plain(data) == text


def test_sequences_and_characters_may_be_cut_anywhere() -> None:
    data = b"a" + GREEN + "ü€".encode() + b"\x1b]0;t\x1b\\b\x1bPx\x1b\\c\r\n"
    for size in range(1, len(data)):
        piecewise = Plain()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert "".join(map(piecewise.take, pieces)) == "aOKü€bc\n"


def test_a_sequence_without_end_is_not_held_back_for_ever() -> None:
    stripped = Plain()
    assert stripped.take(b"\x1b]" + b"x" * 100) == ""
    assert stripped.take(b"x" * 10_000).endswith("x")


def test_lines_are_cut_whole() -> None:
    lines = Lines()
    assert lines.take(b"one\r\ntw") == ["one"]
    assert lines.take(b"o\r\n\r\nrest") == ["two", ""]
    assert lines.take(b"", final=True) == ["rest"]
    assert lines.take(b"", final=True) == []
    assert lines.take(b"x" * LINE_LIMIT) == ["x" * LINE_LIMIT]


# The log


def test_the_log_reads_from_any_position() -> None:
    log = Log()
    log.append(b"hello ")
    log.append(b"world")
    assert log.read(0, 5) == (5, b"hello")
    assert log.read(6, 100) == (11, b"world")
    assert log.read(11, 100) == (11, b"")
    assert log.read_from(-5) == b"hello world"


def test_the_oldest_part_of_a_long_log_goes() -> None:
    log = Log(limit=10)
    for number in range(10):
        log.append(f"line {number}\n".encode())
    assert (log.start, log.end) == (42, 70)
    assert log.read_from(0) == b"line 6\nline 7\nline 8\nline 9\n"
    assert log.read(0, 6) == (48, b"line 6")
    assert log.read(56, 100) == (70, b"line 8\nline 9\n")


def test_a_full_disk_costs_the_log_and_not_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    log.append(b"before")

    def full(fd: int, data: bytes, position: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    log.append(b"lost")
    monkeypatch.undo()
    log.append(b"after")
    assert (log.start, log.end) == (10, 15)
    assert log.read_from(0) == b"after"


def test_the_logs_files_have_no_name_and_are_closed() -> None:
    log = Log()
    log.append(b"x")
    fd = log._files[0].fd
    assert os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)")
    del log
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# What was printed


def test_the_log_keeps_every_byte_and_the_tail_is_plain(console: Console, node: Node) -> None:
    node.prints(GREEN + b" one\r\ntwo \xff\r\n")
    console.wait_for("two", Deadline(60))
    console.close()
    assert console.log() == "\x1b[0;32mOK\x1b[0m one\r\ntwo \ufffd\r\n"
    assert console.log(stripped=True) == "OK one\ntwo \ufffd\n"
    assert console.tail(6) == "two \ufffd\n"


def test_text_from_before_counts_and_is_consumed(console: Console, node: Node) -> None:
    node.prints(b"login: one\r\nlogin: two\r\n")
    assert console.wait_for(r"login: \w+", Deadline(60)) == "login: one"
    assert console.wait_for(r"login: \w+", Deadline(60)) == "login: two"
    with pytest.raises(TimeoutExceeded) as caught:
        console.wait_for(r"login: \w+", Deadline(0.02))
    assert caught.value.last == "the last line is 'login: two'"
    assert caught.value.node == "web"
    node.prints(b"login: three\r\n")
    assert console.wait_for(r"login: \w+", Deadline(60)) == "login: three"


def test_a_wait_sees_what_is_printed_meanwhile_through_colours(console: Console, node: Node) -> None:
    threading.Timer(0.02, node.prints, [b"Reached \x1b[1mtarget\x1b[0m\r\n"]).start()
    assert console.wait_for("^Reached target$", Deadline(60)) == "Reached target"


def test_a_match_may_span_lines_and_pieces(console: Console, node: Node) -> None:
    node.prints(b"x" * 16380 + b"\r\nfirst\r\nsecond\r\n")
    assert console.wait_for(re.compile(r"first\nsecond"), Deadline(60)) == "first\nsecond"


def test_a_deadline_that_has_come_still_allows_a_look(console: Console, node: Node) -> None:
    node.prints(b"ready\r\n")
    console.wait_for("ready", Deadline(60))
    node.prints(b"again\r\nand again\r\n")
    seen = console.subscribe(lambda line: None)
    wait_for(lambda: "and again\r\n" in console.log())
    seen()
    assert console.wait_for("and", Deadline(0)) == "and"
    with pytest.raises(TimeoutExceeded):
        console.wait_for("never", Deadline(0))


def test_chatter_is_neither_lost_nor_held_up_nor_kept_in_memory(console: Console, node: Node) -> None:
    line = b"some chatter that is rather long, and of no interest to anybody at all\r\n"
    for _ in range(30):
        node.prints(line * 1000)
    node.prints(b"the end\r\n")
    assert console.wait_for("the end", Deadline(30)) == "the end"
    assert len(console.log()) == 30_000 * len(line) + 9
    assert console._search is not None
    assert len(console._search.before or "") < 1_000_000


def test_threads_wait_one_after_the_other_and_not_beyond_their_deadlines(
    console: Console, node: Node
) -> None:
    done = threading.Event()

    def first() -> None:
        console.wait_for("end", Deadline(60))
        done.set()

    thread = threading.Thread(target=first)
    thread.start()
    wait_for(console._searching.locked)
    with pytest.raises(TimeoutExceeded):
        console.wait_for("anything", Deadline(0.02))
    node.prints(b"end")
    thread.join(60)
    assert done.is_set()


def test_a_closed_console_ends_waits_after_what_it_printed(console: Console, node: Node) -> None:
    node.prints(b"last words\r\n")
    node.close()
    assert console.wait_for("words", Deadline(60)) == "words"
    with pytest.raises(NotRunningError, match="never"):
        console.wait_for("never", Deadline(60))


def test_closing_takes_what_is_there_and_may_be_done_twice(console: Console, node: Node) -> None:
    node.prints(b"last words")
    console.close()
    console.close()
    assert console.log() == "last words"
    assert not any(thread.name == "console of web" for thread in threading.enumerate())


# Lines


def test_subscribers_get_lines_and_one_that_fails_harms_nobody(
    console: Console, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def fails(line: str) -> None:
        raise ZeroDivisionError(line)

    console.subscribe(fails)
    unsubscribe = console.subscribe(seen.put)
    node.prints(GREEN + b" one\r\ntwo\r\nrest")
    assert [seen.get(timeout=60), seen.get(timeout=60)] == ["OK one", "two"]
    node.close()
    assert seen.get(timeout=60) == "rest"
    unsubscribe()
    assert "ZeroDivisionError" in caplog.text
    console.close()


# Typing


def test_what_is_sent_arrives(console: Console, node: Node) -> None:
    console.send("root\nsüß\n")
    assert node.hears(11) == "root\nsüß\n".encode()


def test_more_than_a_terminal_takes_at_once_arrives(console: Console, node: Node) -> None:
    text = "0123456789abcde\n" * 1000
    thread = threading.Thread(target=console.send, args=(text,))
    thread.start()
    assert node.hears(len(text)) == text.encode()
    thread.join(60)


@pytest.mark.parametrize(
    "texts",
    [["\x1d\x1d\x1d"], ["\x1d\x1d"], ["a\x1d", "\x1db"], ["\x1d", "\x1d", "\x1d"], ["\x1d", "", "\x1d"]],
)
def test_escapes_of_nspawn_never_arrive(console: Console, node: Node, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="systemd-nspawn"):
        for text in texts:
            console.send(text)
    console.send("x\x1dy")
    heard = node.hears(1)
    while not heard.endswith(b"x\x1dy"):
        heard += node.hears(1)
    assert b"\x1d\x1d" not in heard


def test_threads_together_do_not_type_an_escape(console: Console, node: Node) -> None:
    refused: list[str] = []

    def type_it() -> None:
        for _ in range(50):
            try:
                console.send("\x1d")
            except ValueError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=type_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 199
    assert node.hears(1) == b"\x1d"


def test_a_terminal_that_nothing_reads_is_a_time_out(console: Console, node: Node) -> None:
    with pytest.raises(TimeoutExceeded, match="nothing reads"):
        console.send("x\n" * 100_000, Deadline(0.05))


def test_typing_at_a_closed_console_says_so(console: Console, node: Node) -> None:
    console.close()
    with pytest.raises(NotRunningError):
        console.send("x")


# Interaction


def test_interaction_needs_a_terminal(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, encoding="ascii") as null:
        monkeypatch.setattr(sys, "__stdin__", null)
        with pytest.raises(ConfigError, match="terminal"):
            console.interact()


def read_line(terminal: FileIO) -> bytes:
    return b"".join(iter(lambda: terminal.read(1), b"\n")) + b"\n"


def test_interaction_copies_both_ways_and_gives_the_terminal_back(
    console: Console, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, terminal = os.openpty()
    with os.fdopen(master, "r+b", buffering=0) as user, os.fdopen(terminal, encoding="utf-8") as stdin:
        before = termios.tcgetattr(stdin.fileno())
        monkeypatch.setattr(sys, "__stdin__", stdin)
        node.prints(b"vm login: ")
        console.wait_for("login", Deadline(60))
        thread = threading.Thread(target=console.interact)
        thread.start()
        assert read_line(user).endswith(b"^] three times leaves it]\r\n")
        assert user.read(10) == b"vm login: "
        user.write(b"root\r")
        assert node.hears(5) == b"root\r"
        node.prints(b"\x1b[1mhi\x1b[0m")
        assert user.read(10) == b"\x1b[1mhi\x1b[0m"
        user.write(b"\x1d\x1d\x1d")
        thread.join(60)
        assert not thread.is_alive()
        assert termios.tcgetattr(stdin.fileno()) == before
        console.send("z")
        assert node.hears(1) == b"z"


def test_interaction_ends_with_the_console(
    console: Console, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, terminal = os.openpty()
    with os.fdopen(master, "r+b", buffering=0), os.fdopen(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "__stdin__", stdin)
        thread = threading.Thread(target=console.interact)
        thread.start()
        wait_for(lambda: bool(console._bells))
        node.close()
        thread.join(60)
        assert not thread.is_alive()


def test_of_a_run_of_escapes_only_the_first_goes_on() -> None:
    keys = Keys()
    assert keys.take(b"a\x1d", 0.0) == b"a\x1d"
    assert keys.take(b"\x1d", 0.5) == b""
    assert keys.take(b"\x1d", 1.2) == b""
    assert keys.take(b"p\x1dq", 1.3) == b"p\x1dq"
    assert keys.take(b"\x1d\x1d\x1d", 1.4) is None


def test_the_end_of_the_users_terminal_detaches() -> None:
    assert Keys().take(b"", 0.0) is None


def test_importing_the_console_imports_no_pexpect() -> None:
    assert "pexpect" not in vars(pytest_nspawn.console)
