"""Parity with the NixOS test driver, on real nodes: the globals of a testScript."""

from __future__ import annotations

import inspect
import logging
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_nspawn import Machine, UnsupportedError
from pytest_nspawn.cluster import Cluster, Engine
from pytest_nspawn.driver import Debug, Driver, Surroundings, locate
from pytest_nspawn.errors import CommandFailed, RequestedAssertionFailed, TimeoutExceeded
from pytest_nspawn.model import Node, Topology

from .parity import FUNCTIONS, GLOBALS

RunScript = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def nodes(engine: Engine) -> Iterator[Cluster]:
    topology = Topology({"one": Node(networks=[1, 3]), "other-one": Node(networks=[3])})
    with engine.boot(topology) as nodes:
        yield nodes


@pytest.fixture
def run(nodes: Cluster) -> Iterator[RunScript]:
    """Runs a script; gives what it called `seen`."""
    drivers = []

    def run(script: str, **options: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        where = locate(textwrap.dedent(script), file=None, line=None, name="globals")
        driver = Driver(nodes, where, **options)
        drivers.append(driver)
        symbols = driver.test_symbols
        driver.test_symbols = lambda: {**symbols(), "seen": seen}  # type: ignore[method-assign]
        driver.test_script()
        return seen

    yield run
    for driver in drivers:
        driver.close()
    for machine in nodes.machines:
        machine.callbacks.clear()


def test_all_globals_are_there(run: RunScript) -> None:
    seen = run("seen.update(globals())")
    assert set(GLOBALS) <= set(seen)


@pytest.mark.parametrize(("name", "expected"), FUNCTIONS.items())
def test_names_arguments_and_defaults(nodes: Cluster, name: str, expected: str) -> None:
    driver = Driver(nodes, locate("", file=None, line=None, name="x"))
    for machine in nodes.machines:
        machine.callbacks.clear()
    signature = inspect.signature(driver.test_symbols()[name])
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == expected


def test_nodes_and_networks_by_name(run: RunScript, nodes: Cluster) -> None:
    seen = run("seen.update(globals())", aliases={"front-end": "one"})
    assert seen["one"] is seen["front_end"] is nodes["one"]
    assert seen["other_one"] is nodes["other-one"]
    assert seen["machines"] == seen["machines_nspawn"] == nodes.machines
    assert seen["driver"].machines == nodes.machines
    assert seen["machines_qemu"] == []
    assert "machine" not in seen
    assert [vlan.nr for vlan in seen["vlans"]] == [1, 3]
    assert seen["vlan1"].nr == 1
    assert seen["vlan3"] is seen["vlans"][1]
    assert seen["Machine"] is seen["BaseMachine"] is Machine


def test_the_only_node_is_called_machine_too(engine: Engine) -> None:
    with engine.boot(Topology({"server": Node()}), start=False) as nodes:
        driver = Driver(
            nodes, locate("machine.wait_for_unit('multi-user.target')", file=None, line=None, name="x")
        )
        assert driver.test_symbols()["machine"] is nodes["server"]
        driver.test_script()
        driver.run_tests()
        assert driver.out_dir.is_dir()


def test_start_all(engine: Engine) -> None:
    with engine.boot(Topology({"a": Node(), "b": Node()}), start=False) as nodes:
        driver = Driver(
            nodes, locate("start_all()\na.connect()\nb.connect()", file=None, line=None, name="x")
        )
        driver.test_script()
        assert all(machine.is_up() for machine in driver.machines)


def test_join_all(engine: Engine) -> None:
    script = "start_all()\nfor each in machines:\n    each.execute('systemctl poweroff', check_output=False)\njoin_all()"
    with engine.boot(Topology({"a": Node(), "b": Node()}), start=False) as nodes:
        Driver(nodes, locate(script, file=None, line=None, name="x")).test_script()
        assert not any(machine.is_up() for machine in nodes.machines)


def test_subtest(run: RunScript, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run("with subtest('a part'):\n    one.succeed('true')")
    assert "subtest: a part" in caplog.text


def test_subtest_fails(run: RunScript, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), pytest.raises(CommandFailed):
        run("with subtest('a part'):\n    one.succeed('false')")
    assert "failed: subtest: a part" in caplog.text


def test_retry(run: RunScript) -> None:
    script = """
        calls = []
        def attempt(last):
            calls.append(last)
            return len(calls) == 3
        retry(attempt)
        seen["calls"] = calls
    """
    assert run(script)["calls"] == [False, False, False]


def test_retry_fails_times_out_and_tells_the_last_try(run: RunScript) -> None:
    script = """
        calls = seen["calls"] = []
        try:
            retry(lambda last: calls.append(last), timeout_seconds=0.3)
        except Exception as error:
            seen["error"] = error
    """
    seen = run(script)
    assert isinstance(seen["error"], TimeoutExceeded)
    assert "limit 0.3 s" in str(seen["error"])
    assert seen["calls"][-1] is True
    assert not any(seen["calls"][:-1])


def test_polling_condition_as_a_decorator_without_arguments(run: RunScript) -> None:
    script = """
        @polling_condition
        def fine():
            "all is fine"
            one.succeed("true")
        with fine:
            one.succeed("true")
        seen["description"] = fine.description
    """
    assert run(script)["description"] == "all is fine"


def test_polling_condition_with_arguments_and_a_wait(run: RunScript) -> None:
    script = """
        one.succeed("rm -f /tmp/ready; (sleep 0.5; touch /tmp/ready) >/dev/null 2>&1 &")
        @polling_condition(seconds_interval=0.1, description="it is ready")
        def ready():
            return one.execute("test -e /tmp/ready")[0] == 0
        ready.wait(timeout=60)
        with ready:
            one.succeed("true")
    """
    run(script)


def test_polling_condition_fails_the_running_command_at_once(run: RunScript) -> None:
    script = """
        one.succeed("rm -f /tmp/bad; (sleep 1; touch /tmp/bad) >/dev/null 2>&1 &")
        @polling_condition(seconds_interval=0.2)
        def not_bad():
            return one.execute("test -e /tmp/bad")[0] != 0
        with not_bad:
            other_one.succeed("rm -f /tmp/slept; sleep 120; touch /tmp/slept")
    """
    with pytest.raises(RequestedAssertionFailed, match="polling condition failed: not_bad"):
        run(script)
    run("other_one.fail('test -e /tmp/slept')")


def test_polling_condition_fails_by_its_default_interval_too(run: RunScript) -> None:
    script = """
        @polling_condition
        def never():
            return False
        with never:
            one.succeed("true")
    """
    with pytest.raises(RequestedAssertionFailed, match="never"):
        run(script)


def test_polling_condition_is_over_after_its_block(run: RunScript) -> None:
    script = """
        holds = [True]
        @polling_condition(seconds_interval=0.01)
        def it():
            return holds[0]
        with it:
            one.succeed("true")
        holds[0] = False
        one.succeed("true")
        assert driver.polling_conditions == []
    """
    run(script)


def test_polling_condition_wait_times_out(run: RunScript) -> None:
    script = """
        @polling_condition
        def never():
            one.succeed("echo the reason >&2; false")
        never.wait(timeout=0.3)
    """
    with pytest.raises(TimeoutExceeded, match="waiting for never") as caught:
        run(script)
    assert "the reason" in str(caught.value)


def test_global_timeout_ends_what_waits_in_a_node(run: RunScript) -> None:
    for script in (
        "one.succeed('sleep 3600')",
        "one.wait_for_file('/absent')",
        "one.sleep(3600)",
        "retry(lambda _: False)",
    ):
        with pytest.raises(TimeoutExceeded, match=r"the testScript \(its global time-out\)") as caught:
            run(script, timeout=0.5)
        assert caught.value.elapsed < 600


def test_global_timeout_ends_what_waits_elsewhere(run: RunScript) -> None:
    with pytest.raises(TimeoutExceeded, match="global time-out") as caught:
        run("import time\ntime.sleep(3600)", timeout=0.2)
    assert caught.value.elapsed < 600
    assert threading.current_thread() is threading.main_thread()


def test_log_has_the_loggers_methods(run: RunScript, caplog: pytest.LogCaptureFixture) -> None:
    script = """
        log.log("plain", {"machine": "one"})
        log.info("one", 2, "three")
        log.warning("careful")
        log.error("wrong")
        log.log_machinestate("it boots", "one")
        with log.nested("a block"):
            pass
        with log.subtest("a part"):
            pass
        log.log_serial("unheard", "one")
        log.print_serial_logs(True)
        log.log_serial("heard", "one")
    """
    with caplog.at_level("INFO"):
        run(script)
    messages = [
        (record.levelno, record.getMessage()) for record in caplog.records if record.name.endswith(".script")
    ]
    assert messages[:5] == [
        (logging.INFO, "one: plain"),
        (logging.INFO, "one 2 three"),
        (logging.WARNING, "careful"),
        (logging.ERROR, "wrong"),
        (logging.INFO, "one: it boots"),
    ]
    assert (logging.INFO, "one: heard") in messages
    assert (logging.INFO, "one: unheard") not in messages


def test_serial_stdout_on_and_off(run: RunScript, caplog: pytest.LogCaptureFixture) -> None:
    script = """
        serial_stdout_on()
        one.succeed("true")
        one.succeed("echo shouted > /dev/console; sleep 0.3")
        serial_stdout_off()
        one.succeed("echo whispered > /dev/console; sleep 0.3")
    """
    with caplog.at_level("INFO"):
        run(script)
    said = [record.getMessage() for record in caplog.records if record.name.endswith(".script")]
    assert "one: shouted" in said
    assert "one: whispered" not in said


def test_t(run: RunScript) -> None:
    run("t.assertEqual(1, 1)\nt.assertIn('a', 'abc')\nwith t.assertRaises(ValueError):\n    int('x')")


def test_t_fails(run: RunScript) -> None:
    with pytest.raises(AssertionError, match="'a' not found in 'xyz'"):
        run("t.assertIn('a', 'xyz')")


def test_os(run: RunScript) -> None:
    assert run("seen['here'] = os.path.join('a', 'b')")["here"] == "a/b"


def test_debug_breakpoint(run: RunScript) -> None:
    reached = []
    run("debug.breakpoint()", surroundings=Surroundings(debug=Debug(breakpoint=lambda: reached.append(1))))
    assert reached == [1]


def test_create_machine_fails(run: RunScript) -> None:
    for command in ("qemu-kvm -m 512", "/nix/store/absent/bin/run-machine-vm"):
        with pytest.raises(UnsupportedError, match="create_machine") as caught:
            run(f"create_machine({command!r}, name='extra')")
        assert caught.value.node == "extra"
        assert "store path" in str(caught.value)


def test_create_machine(run: RunScript, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without Nix there is no system: whoever boots it gets one of the machine's own kind.
    with engine.boot(Topology({"extra": Node()})) as more:
        monkeypatch.setattr("pytest_nspawn.driver.driver._system_of", lambda command: command)
        surroundings = Surroundings(boot=lambda name, node: more[name])
        script = """
            new = create_machine({"name": "extra", "startCommand": "/nix/store/x-system"}, keep_machine_state=True)
            new.start()
            seen["said"] = new.succeed("hostname")
            seen["last"] = machines[-1] is new and new.keep_machine_state
        """
        assert run(script, surroundings=surroundings) == {"said": "extra\n", "last": True}


def test_definitions_of_a_script_see_its_globals(run: RunScript) -> None:
    script = """
        from typing import Optional
        count = 0
        def add():
            global count
            count += 1
            return [each.name for each in machines if each is not None]
        class Thing:
            def names(self):
                return add()
        seen["names"] = Thing().names()
        seen["count"] = count
    """
    assert run(script) == {"names": ["one", "other-one"], "count": 1}


def test_a_traceback_has_the_lines_of_the_nix_file(nodes: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "test.nix"
    path.write_text(
        "{ ... }:\n{\n  testScript = { nodes, ... }: ''\n    first = \"${toString 1}\"\n\n    def fail():\n"
        "        raise ValueError(''')\n\n    fail()\n  '';\n}\n".replace("(''')", '("deep")')
    )
    script = locate(
        'first = "1"\n\ndef fail():\n    raise ValueError("deep")\n\nfail()\n', file=path, line=None, name="x"
    )
    driver = Driver(nodes, script)
    for machine in nodes.machines:
        machine.callbacks.clear()
    with pytest.raises(ValueError, match="deep") as caught:
        driver.test_script()
    assert [(entry.path, entry.lineno + 1) for entry in caught.traceback[-2:]] == [(path, 9), (path, 7)]
