"""The bus against a systemd of a few lines, over a socket pair."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType, Parser

import pytest_nspawn.bus
from pytest_nspawn.bus import Bus, BusError, UnitState, unit_name
from pytest_nspawn.bus.connection import Connection
from pytest_nspawn.bus.text import format_property, unit_path
from pytest_nspawn.errors import NotRunningError, TimeoutExceeded
from pytest_nspawn.timing import Deadline

MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
ROOT = "/org/freedesktop/systemd1"


class RefusalError(Exception):
    def __init__(self, name: str, message: str = "no") -> None:
        self.name = name
        super().__init__(message)


@dataclass
class FakeUnit:
    load: str = "loaded"
    active: str = "inactive"
    sub: str = "dead"
    job: int = 0
    in_memory: bool = True


@dataclass
class FakeSystemd:
    """Answers as PID 1 does, one connection after the other."""

    units: dict[str, FakeUnit] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    properties: dict[tuple[str, str], tuple[str, object]] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    pending: int = 0
    calls: list[str] = field(default_factory=list)
    handshake: bytes = b""
    greeting: bytes = b"DATA\r\nOK 1234\r\n"
    refusals: list[Exception] = field(default_factory=list)
    after: dict[str, Callable[[], object]] = field(default_factory=dict)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    silent: bool = False
    connections: int = 0
    busy: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._sock: socket.socket | None = None
        self._sending = threading.Lock()
        self._serials = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        if self.refusals:
            raise self.refusals.pop(0)
        ours, theirs = socket.socketpair()
        self.connections += 1
        self.handshake = b""
        self._sock = ours
        self._sockets.append(ours)
        thread = threading.Thread(target=self._serve, args=(ours,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return theirs

    def drop(self) -> None:
        assert self._sock is not None
        self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
        for sock in self._sockets:
            sock.close()

    def send(self, data: bytes) -> None:
        assert self._sock is not None
        with self._sending:
            self._sock.sendall(data)

    def signal(self, member: str, signature: str = "", *body: object, path: str = ROOT) -> None:
        self.send(self._raw(MessageType.signal, signature, body, path=path, interface=MANAGER, member=member))

    def changed(self, unit: str) -> None:
        self.signal("PropertiesChanged", "s", UNIT, path=unit_path(unit))

    def _raw(self, kind: MessageType, signature: str, body: tuple[object, ...], **fields: Any) -> bytes:
        named = {HeaderFields[name]: value for name, value in fields.items()}
        if signature:
            named[HeaderFields.signature] = signature
        header = Header(Endianness.little, kind, 0, 1, -1, next(self._serials), named)
        raw: bytes = Message(header, body).serialise()
        return raw

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self.handshake.endswith(b"BEGIN\r\n"):
                data = sock.recv(1)
                if not data:
                    return
                self.handshake += data
                if self.handshake.endswith(b"DATA\r\n"):
                    sock.sendall(self.greeting)
            parser = Parser()
            while data := sock.recv(4096):
                for message in parser.feed(data):
                    self._answer(sock, message)

    def _answer(self, sock: socket.socket, call: Message) -> None:
        member = call.header.fields[HeaderFields.member]
        self.calls.append(member)
        self.busy.put(member)
        if self.silent:
            return
        serial = call.header.serial
        self.before.pop(member, lambda: None)()
        try:
            signature, body = self._result(member, call)
            reply = self._raw(MessageType.method_return, signature, body, reply_serial=serial)
        except RefusalError as error:
            reply = self._raw(
                MessageType.error, "s", (str(error),), reply_serial=serial, error_name=error.name
            )
        # In two pieces, as a stream may.
        with self._sending:
            sock.sendall(reply[:20])
            sock.sendall(reply[20:])
        self.after.pop(member, lambda: None)()

    def _result(self, member: str, call: Message) -> tuple[str, tuple[object, ...]]:
        body = call.body
        if member == "Get":
            return self._get(call.header.fields[HeaderFields.path], *body)
        if member == "GetUnit":
            unit = self.units.get(self.aliases.get(body[0], body[0]))
            if unit is None or not unit.in_memory:
                raise RefusalError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {body[0]} not loaded.")
            return "o", (unit_path(body[0]),)
        if member == "ListUnitsByNames":
            rows = [self._row(name) for name in body[0] if " " not in name]
            return "a(ssssssouso)", (rows,)
        if member == "ListUnitsByPatterns":
            states, _patterns = body
            found = [name for name, unit in self.units.items() if not states or unit.active in states]
            return "a(ssssssouso)", ([self._row(name) for name in found],)
        if member.endswith("Unit"):
            if body[0] not in self.units:
                raise RefusalError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {body[0]} not found.")
            self.jobs.add(f"{ROOT}/job/7")
            return "o", (f"{ROOT}/job/7",)
        raise RefusalError("org.freedesktop.DBus.Error.UnknownMethod")

    def _row(self, name: str) -> tuple[object, ...]:
        name = self.aliases.get(name, name)
        unit = self.units.get(name, FakeUnit(load="not-found", in_memory=False))
        if not unit.in_memory:
            # To look at it loads it, and lets it go again.
            self.signal("UnitNew", "so", name, unit_path(name))
            self.signal("UnitRemoved", "so", name, unit_path(name))
        return (name, name, unit.load, unit.active, unit.sub, "", unit_path(name), unit.job, "", "/")

    def _get(self, path: str, interface: str, name: str) -> tuple[str, tuple[object, ...]]:
        if name == "NJobs":
            return "v", (("u", self.pending),)
        if path in self.jobs:
            return "v", (("s", "running"),)
        if (interface, name) in self.properties:
            return "v", (self.properties[interface, name],)
        raise RefusalError("org.freedesktop.DBus.Error.UnknownProperty", f"Unknown property {name}")


@pytest.fixture
def systemd() -> Iterator[FakeSystemd]:
    fake = FakeSystemd()
    yield fake
    fake.close()


@pytest.fixture
def bus(systemd: FakeSystemd) -> Iterator[Bus]:
    bus = Bus(systemd.connect, "web")
    yield bus
    bus.close()


class Waiting:
    """A wait on a thread of its own."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.seen: list[UnitState] = []
        self._outcome: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(run,), daemon=True)
        self._thread.start()

    def _run(self, run: Callable[[], object]) -> None:
        try:
            self._outcome.put(run())
        except Exception as error:  # noqa: BLE001 (handed on to the test)
            self._outcome.put(error)

    def result(self) -> Any:
        return self._outcome.get(timeout=60)


def active(state: UnitState) -> bool:
    return state.active_state == "active"


def look(systemd: FakeSystemd, member: str = "ListUnitsByNames") -> None:
    """Until the bus has asked for it."""
    while systemd.busy.get(timeout=60) != member:
        pass


# Names and properties as text


@pytest.mark.parametrize(
    ("given", "unit"),
    [
        ("nginx.service", "nginx.service"),
        ("nginx", "nginx.service"),
        ("foo.bar", "foo.bar.service"),
        ("getty@tty1.service", "getty@tty1.service"),
        (r"sys-devices\x2da.device", r"sys-devices\x2da.device"),
        ("/", "-.mount"),
        ("/srv//data/", "srv-data.mount"),
        ("/home/a-b/.x", r"home-a\x2db-.x.mount"),
        ("/.hidden", r"\x2ehidden.mount"),
        ("/dev/sda1", "dev-sda1.device"),
        ("/mnt/ü", r"mnt-\xc3\xbc.mount"),
    ],
)
def test_names_are_taken_as_systemctl_takes_them(given: str, unit: str) -> None:
    assert unit_name(given) == unit


@pytest.mark.parametrize(
    ("unit", "label"),
    [
        ("dbus.service", "dbus_2eservice"),
        ("9p@a-b.mount", "_39p_40a_2db_2emount"),
        (r"a\x2d.device", "a_5cx2d_2edevice"),
        ("", "_"),
    ],
)
def test_object_paths_escape_all_but_letters_and_digits(unit: str, label: str) -> None:
    assert unit_path(unit) == f"{ROOT}/unit/{label}"


@pytest.mark.parametrize(
    ("name", "kind", "value", "text"),
    [
        ("ActiveState", "s", "active", "active"),
        ("StatusText", "s", "two\nlines", "[unprintable]"),
        ("CanStart", "b", True, "yes"),
        ("CanStop", "b", False, "no"),
        ("MainPID", "u", 42, "42"),
        ("UMask", "u", 0o22, "0022"),
        ("DirectoryMode", "u", 0o755, "0755"),
        ("UID", "u", 2**32 - 1, "[not set]"),
        ("UID", "u", 0, "0"),
        ("Nice", "i", -5, "-5"),
        ("LimitNOFILE", "t", 524288, "524288"),
        ("LimitNOFILE", "t", 2**64 - 1, "infinity"),
        ("MemoryMax", "t", 2**64 - 1, "infinity"),
        ("TasksMax", "t", 2**64 - 1, "infinity"),
        ("TimeoutStopUSec", "t", 2**64 - 1, "infinity"),
        ("MemoryCurrent", "t", 2**64 - 1, "[not set]"),
        ("CPUUsageNSec", "t", 2**64 - 1, "[not set]"),
        ("CPUWeight", "t", 2**64 - 1, "[not set]"),
        ("ActiveEnterTimestampMonotonic", "t", 17, "17"),
        ("Names", "as", ["a.service", "b@1.service"], "a.service b@1.service"),
        ("Before", "as", [], ""),
        ("InvocationID", "ay", b"\x01\xff", "01ff"),
        ("Load", "d", 0.5, "0.5"),
    ],
)
def test_properties_print_as_systemctl_prints_them(name: str, kind: str, value: object, text: str) -> None:
    assert format_property(name, kind, value) == text


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("ActiveEnterTimestamp", "t", 17),
        ("TimeoutStopUSec", "t", 90_000_000),
        ("CapabilityBoundingSet", "t", 1),
        ("NextElapseUSecRealtime", "t", 2**64 - 1),
        ("CPUWeight", "t", 0),
        ("IPIngressBytes", "t", 2**64 - 1),
        ("FailureActionExitStatus", "i", -1),
        ("NUMAPolicy", "i", 0),
        ("Environment", "as", ["A=b c"]),
        ("ExecStart", "a(sasbttttuii)", []),
        ("Job", "(uo)", (0, "/")),
    ],
)
def test_what_only_systemctl_can_print_is_a_lookup_error(name: str, kind: str, value: object) -> None:
    with pytest.raises(LookupError, match=name):
        format_property(name, kind, value)


# Calls


def test_authentication_names_no_uid(bus: Bus, systemd: FakeSystemd) -> None:
    bus.unit_state("a.service")
    assert systemd.handshake == b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"


def test_a_refused_authentication_says_so(systemd: FakeSystemd, bus: Bus) -> None:
    systemd.greeting = b"REJECTED\r\n"
    with pytest.raises(BusError) as caught:
        bus.unit_state("a.service")
    assert caught.value.dbus_name == "org.freedesktop.DBus.Error.AuthFailed"
    assert "REJECTED" in str(caught.value)


def test_a_property_is_found_in_the_interface_of_the_unit_or_of_its_kind(
    bus: Bus, systemd: FakeSystemd
) -> None:
    systemd.properties = {
        (UNIT, "ActiveState"): ("s", "active"),
        ("org.freedesktop.systemd1.Service", "MainPID"): ("u", 5),
    }
    assert bus.get_property("a.service", "ActiveState") == "active"
    assert systemd.calls == ["Get"]
    assert bus.get_property("a", "MainPID") == "5"
    assert systemd.calls == ["Get"] * 3
    assert bus.get_property("b.service", "MainPID") == "5"
    assert systemd.calls == ["Get"] * 4  # where it is has been learned
    assert systemd.connections == 1


def test_an_unknown_property_is_a_lookup_error(bus: Bus) -> None:
    with pytest.raises(LookupError, match="Nonsense"):
        bus.get_property("a.service", "Nonsense")


def test_a_units_state_holds_its_own_name_and_what_is_pending(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units = {"real.service": FakeUnit(active="activating", sub="start", job=3)}
    systemd.aliases = {"alias.service": "real.service"}
    systemd.pending = 2
    assert bus.unit_state("alias") == UnitState(
        unit="real.service",
        load_state="loaded",
        active_state="activating",
        sub_state="start",
        job=3,
        pending=2,
    )
    assert str(bus.unit_state("nothing")) == "inactive (dead, not-found)"


def test_what_is_no_name_is_a_bus_error(bus: Bus) -> None:
    with pytest.raises(BusError, match=r"'a b\.service' is no name of a unit"):
        bus.unit_state("a b")


def test_failed_units_are_listed_sorted(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units = {
        "b.service": FakeUnit(active="failed"),
        "a.mount": FakeUnit(active="failed"),
        "c.service": FakeUnit(active="active"),
    }
    assert bus.failed_units() == ["a.mount", "b.service"]
    assert len(bus.list_units()) == 3


def test_refusals_keep_the_name_of_the_error_and_pickle(bus: Bus) -> None:
    with pytest.raises(BusError) as caught:
        bus.start_unit("nope")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.node, error.dbus_name) == ("web", "org.freedesktop.systemd1.NoSuchUnit")
    assert str(error) == "web: Unit nope.service not found."


def test_threads_get_their_own_answers(bus: Bus, systemd: FakeSystemd) -> None:
    names = [f"u{number}.service" for number in range(8)]
    systemd.units = {name: FakeUnit(sub=name) for name in names}
    waits = [Waiting(lambda name=name: [bus.unit_state(name).sub_state for _ in range(30)]) for name in names]  # type: ignore[misc]
    assert [set(wait.result()) for wait in waits] == [{name} for name in names]


def test_no_answer_is_an_error_of_its_own(systemd: FakeSystemd) -> None:
    systemd.silent = True
    connection = Connection(systemd.connect(), "web", limit=0.02)
    with pytest.raises(BusError) as caught:
        connection.call(pytest_nspawn.bus._pending_jobs())
    assert caught.value.dbus_name == "org.freedesktop.DBus.Error.NoReply"
    with pytest.raises(TimeoutExceeded):
        connection.call(pytest_nspawn.bus._pending_jobs(), deadline=Deadline(0.01))
    connection.close()


# Waiting


def test_a_wait_ends_with_the_signal(bus: Bus, systemd: FakeSystemd) -> None:
    unit = systemd.units["a.service"] = FakeUnit(active="activating")
    wait = Waiting(lambda: bus.wait_for_unit("a", active, Deadline(60)))
    look(systemd)
    unit.active, unit.sub = "active", "running"
    systemd.changed("a.service")
    assert str(wait.result()) == "active (running)"


def test_a_change_between_filter_and_look_is_not_lost(bus: Bus, systemd: FakeSystemd) -> None:
    unit = systemd.units["a.service"] = FakeUnit()

    def change() -> None:
        unit.active = "active"
        systemd.changed("a.service")

    # It comes right after the state was read, before the bus could have read the answer.
    systemd.after["ListUnitsByNames"] = change
    assert active(bus.wait_for_unit("a", active, Deadline(60)))


def test_a_wait_asks_only_after_signals_that_concern_it(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit(active="activating")
    with pytest.raises(TimeoutExceeded) as caught:
        bus.wait_for_unit("a", active, Deadline(0.5))
    assert caught.value.last == "activating (dead)"
    calls = len(systemd.calls)
    look(systemd)
    wait = Waiting(lambda: bus.wait_for_unit("a", active, Deadline(1)))
    look(systemd)
    for _ in range(100):
        systemd.changed("b.service")
    assert isinstance(wait.result(), TimeoutExceeded)
    assert len(systemd.calls) == 2 * calls


def test_a_wait_for_a_unit_that_is_not_in_memory_does_not_load_it_again_and_again(
    bus: Bus, systemd: FakeSystemd
) -> None:
    with pytest.raises(TimeoutExceeded, match="not-found"):
        bus.wait_for_unit("nothing", active, Deadline(0.1))
    assert systemd.calls.count("ListUnitsByNames") == 1
    assert len(systemd.calls) < 10


def test_a_unit_that_comes_up_by_itself_ends_a_wait(bus: Bus, systemd: FakeSystemd) -> None:
    wait = Waiting(lambda: bus.wait_for_unit("/mnt", active, Deadline(60)))
    look(systemd)
    systemd.units["mnt.mount"] = FakeUnit(active="active", sub="mounted")
    systemd.signal("UnitNew", "so", "mnt.mount", unit_path("mnt.mount"))
    assert wait.result().sub_state == "mounted"


def test_a_unit_that_leaves_memory_is_inactive(bus: Bus, systemd: FakeSystemd) -> None:
    unit = systemd.units["mnt.mount"] = FakeUnit(active="active", sub="mounted")
    wait = Waiting(lambda: bus.wait_for_unit("/mnt", lambda state: not active(state), Deadline(60)))
    look(systemd)
    unit.in_memory = False
    systemd.signal("UnitRemoved", "so", "mnt.mount", unit_path("mnt.mount"))
    assert str(wait.result()) == "inactive (dead)"


def test_an_alias_is_followed_by_the_units_own_name(bus: Bus, systemd: FakeSystemd) -> None:
    unit = systemd.units["real.service"] = FakeUnit()
    systemd.aliases = {"alias.service": "real.service"}
    wait = Waiting(lambda: bus.wait_for_unit("alias", active, Deadline(60)))
    look(systemd)
    look(systemd)  # the second look, after the filter holds the unit's own name
    unit.active = "active"
    systemd.changed("real.service")
    assert wait.result().unit == "real.service"


def test_unit_files_read_anew_count(bus: Bus, systemd: FakeSystemd) -> None:
    wait = Waiting(
        lambda: bus.wait_for_unit("late", lambda state: state.load_state == "loaded", Deadline(60))
    )
    look(systemd)
    systemd.units["late.service"] = FakeUnit(in_memory=False)
    systemd.signal("Reloading", "b", False)
    assert wait.result().unit == "late.service"


def test_the_end_of_any_job_lets_a_wait_see_that_none_is_pending(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    systemd.pending = 1
    wait = Waiting(lambda: bus.wait_for_unit("a", lambda state: state.pending == 0, Deadline(60)))
    look(systemd)
    systemd.pending = 0
    systemd.signal("JobRemoved", "uoss", 9, f"{ROOT}/job/9", "other.service", "done")
    assert wait.result().active_state == "inactive"


def test_a_deadline_that_has_come_still_allows_a_look(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit(active="active")
    assert active(bus.wait_for_unit("a", active, Deadline(0)))
    with pytest.raises(TimeoutExceeded, match="unit b"):
        bus.wait_for_unit("b", active, Deadline(0))


def test_until_may_give_up(bus: Bus, systemd: FakeSystemd) -> None:
    def until(state: UnitState) -> bool:
        raise ZeroDivisionError(state.active_state)

    with pytest.raises(ZeroDivisionError, match="inactive"):
        bus.wait_for_unit("a", until, Deadline(60))
    assert bus.unit_state("a").active_state == "inactive"


def test_a_wait_survives_a_systemd_that_executes_itself_anew(bus: Bus, systemd: FakeSystemd) -> None:
    unit = systemd.units["a.service"] = FakeUnit()
    wait = Waiting(lambda: bus.wait_for_unit("a", active, Deadline(60)))
    look(systemd)
    systemd.refusals = [ConnectionRefusedError(), FileNotFoundError()]
    systemd.drop()
    look(systemd)
    unit.active = "active"
    systemd.changed("a.service")
    assert active(wait.result())
    assert systemd.connections == 2


def test_a_call_is_made_anew_where_the_connection_was_dropped(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    bus.unit_state("a")
    systemd.before["ListUnitsByNames"] = systemd.drop
    assert bus.unit_state("a").active_state == "inactive"
    assert systemd.connections == 2


def test_a_node_that_dies_ends_a_wait_at_once(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    wait = Waiting(lambda: bus.wait_for_unit("a", active, Deadline(60)))
    look(systemd)
    systemd.refusals = [NotRunningError(node="web")]
    systemd.drop()
    assert isinstance(wait.result(), NotRunningError)


def test_a_systemd_that_does_not_come_back_is_given_up(
    bus: Bus, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest_nspawn.bus, "RECONNECT_LIMIT", 0.02)
    systemd.refusals = [ConnectionRefusedError() for _ in range(100)]
    with pytest.raises(NotRunningError, match="does not listen") as caught:
        bus.unit_state("a")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(TimeoutExceeded):
        bus.wait_for_unit("a", active, Deadline(0.001))


def test_a_node_that_speaks_no_dbus_harms_nobody(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    bus.unit_state("a")
    for garbage in (b"\xff" * 64, b"l\x02\0\1" + b"\xff" * 60):
        systemd.send(garbage)
        assert bus.unit_state("a").active_state == "inactive"


def test_close_ends_waits(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    wait = Waiting(lambda: bus.wait_for_unit("a", active, Deadline(60)))
    look(systemd)
    bus.close()
    assert isinstance(wait.result(), NotRunningError)
    with pytest.raises(NotRunningError):
        bus.unit_state("a")


# Jobs


def end_job(systemd: FakeSystemd, result: str) -> Callable[[], None]:
    def end() -> None:
        systemd.signal("JobRemoved", "uoss", 8, f"{ROOT}/job/8", "a.service", "other")
        systemd.signal("JobRemoved", "uoss", 7, f"{ROOT}/job/7", "a.service", result)

    return end


@pytest.mark.parametrize("result", ["done", "failed", "dependency", "canceled"])
@pytest.mark.parametrize("verb", ["start", "stop", "restart", "reload"])
def test_a_jobs_result_is_waited_for(bus: Bus, systemd: FakeSystemd, verb: str, result: str) -> None:
    systemd.units["a.service"] = FakeUnit()
    systemd.after[f"{verb.capitalize()}Unit"] = end_job(systemd, result)
    assert getattr(bus, f"{verb}_unit")("a") == result


def test_a_job_that_ends_before_its_number_is_told_is_not_missed(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    systemd.before["StartUnit"] = end_job(systemd, "done")
    assert bus.start_unit("a", deadline=Deadline(60)) == "done"


def test_a_job_that_takes_too_long_is_a_time_out(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    with pytest.raises(TimeoutExceeded, match=r"job: start a\.service"):
        bus.start_unit("a", deadline=Deadline(0.02))


def test_a_job_survives_a_systemd_that_executes_itself_anew(bus: Bus, systemd: FakeSystemd) -> None:
    systemd.units["a.service"] = FakeUnit()
    systemd.after["StartUnit"] = systemd.drop
    systemd.after["Get"] = end_job(systemd, "done")
    assert bus.start_unit("a", deadline=Deadline(60)) == "done"
    assert systemd.calls.count("StartUnit") == 1


@pytest.mark.parametrize(
    ("verb", "state", "result"),
    [("start", "active", "done"), ("start", "failed", "failed"), ("stop", "inactive", "done")],
)
def test_a_job_that_ended_unheard_is_told_by_its_unit(
    bus: Bus, systemd: FakeSystemd, verb: str, state: str, result: str
) -> None:
    unit = systemd.units["a.service"] = FakeUnit()

    def end_unheard() -> None:
        systemd.jobs.clear()
        unit.active = state
        systemd.drop()

    systemd.after[f"{verb.capitalize()}Unit"] = end_unheard
    assert getattr(bus, f"{verb}_unit")("a") == result
