"""The journal, by a journalctl that a test writes: its options are those of the real one, its entries JSON."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pytest_nspawn.errors import MachineError, NotRunningError, TimeoutExceeded
from pytest_nspawn.machine import Machine
from tests.waiting import wait_for

from .fakes import LocalContainer, later

JOURNALCTL = r"""#!/bin/bash
here={here}
echo "$*" >>$here/asked
[ -e $here/refuse ] && echo 'Failed to open the journal' >&2 && exit 1
case " $* " in
  *' --follow '*) exec tail -n +1 -f $here/entries ;;
  *) cat $here/entries ;;
esac
"""


class Log:
    """The journal's content."""

    def __init__(self, here: Path) -> None:
        self.here = here
        (here / "entries").touch()

    def add(self, message: object, **fields: object) -> None:
        entry = {
            "__REALTIME_TIMESTAMP": "1700000000123456",
            "SYSLOG_IDENTIFIER": "app",
            "_PID": "7",
            **fields,
        }
        with (self.here / "entries").open("a") as file:
            file.write(json.dumps({**entry, "MESSAGE": message}) + "\n")

    @property
    def asked(self) -> list[str]:
        return (self.here / "asked").read_text().splitlines()


@pytest.fixture
def log(tmp_path: Path, container: LocalContainer, monkeypatch: pytest.MonkeyPatch) -> Log:
    here = tmp_path / "journal"
    here.mkdir()
    program = here / "journalctl"
    program.write_text(JOURNALCTL.format(here=here))
    program.chmod(0o755)
    for name in ("run", "popen"):
        original = getattr(container.shell(), name)

        def with_path(command: str, original: object = original, **options: object) -> object:
            assert callable(original)
            return original(command.replace("exec journalctl", f"exec {program}"), **options)

        monkeypatch.setattr(container.shell(), name, with_path)
    return Log(here)


def test_journal_is_text(machine: Machine, log: Log) -> None:
    log.add("started")
    log.add([104, 105, 255], SYSLOG_IDENTIFIER=None, _COMM="raw", _PID=None)
    log.add("two\nlines")
    lines = machine.journal().splitlines()
    assert lines[0].endswith(".123456 app[7]: started")
    assert lines[1].endswith("raw: hi�")
    assert lines[2].endswith("app[7]: two")
    assert lines[3] == "lines"


def test_journal_is_narrowed(machine: Machine, log: Log) -> None:
    log.add("GET /a")
    log.add("app is not in this one")
    assert "GET" in machine.journal(grep="GET|POST")
    assert machine.journal(grep="^app$") == ""
    machine.journal("x.service", datetime(2024, 1, 1, tzinfo=UTC))
    assert "--unit=x.service" in log.asked[-1]
    assert "--since=@1704067200.000000" in log.asked[-1]
    machine.journal(since=timedelta(minutes=1))
    moment = float(log.asked[-1].split("--since=@")[1].split()[0])
    assert abs(time.time() - 60 - moment) < 5
    machine.journal(since="yesterday")
    assert "--since=yesterday" in log.asked[-1]
    assert "--boot" not in log.asked[-1]


def test_a_journal_that_cannot_be_read_is_a_fault(machine: Machine, log: Log) -> None:
    (log.here / "refuse").touch()
    with pytest.raises(MachineError, match="Failed to open the journal"):
        machine.journal()


def test_wait_for_journal_sees_old_and_new(machine: Machine, log: Log) -> None:
    log.add("listening on port 80")
    assert machine.wait_for_journal(r"port \d+", timeout=60) == "listening on port 80"
    later(0.2, lambda: log.add("ready\nfor you"))
    assert machine.wait_for_journal("(?s)ready.*you", unit="x.service", timeout=60) == "ready\nfor you"
    assert "--unit=x.service" in log.asked[-1]
    assert "--boot" in log.asked[-1]


def test_wait_for_journal_says_what_came_last(machine: Machine, log: Log) -> None:
    log.add("something else")
    with pytest.raises(TimeoutExceeded, match="something else"):
        machine.wait_for_journal("never", timeout=0.3)


def test_wait_for_journal_begins_again_where_there_is_no_journal_yet(machine: Machine, log: Log) -> None:
    (log.here / "refuse").touch()
    log.add("there")
    later(0.3, (log.here / "refuse").unlink)
    assert machine.wait_for_journal("there", timeout=60) == "there"


def test_wait_for_journal_ends_with_the_node(machine: Machine, log: Log, container: LocalContainer) -> None:
    later(0.2, container.kill)
    with pytest.raises(NotRunningError):
        machine.wait_for_journal("never", timeout=60)


def test_wait_for_journal_leaves_nothing_running(machine: Machine, log: Log) -> None:
    log.add("there")
    machine.wait_for_journal("there", timeout=60)
    wait_for(lambda: str(log.here / "entries") not in _command_lines())
    assert str(log.here / "entries") not in _command_lines()


def _command_lines() -> str:
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return "\n".join(lines)
