"""A test process to be killed: boots two nodes, says who is who as JSON, then does as it is told, a line at a time."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path

from pytest_nspawn import Cluster, boot


def main() -> None:
    """Boot, tell, obey."""
    if "fork" in sys.argv:
        boot_and_fork()
        return
    with boot(alpha=None, beta=None) as nodes:
        nodes.start_all()
        for machine in nodes.machines:
            machine.succeed("true")
        print(json.dumps(pids(nodes)), flush=True)
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            if word == "quit":
                os._exit(0)
            print(json.dumps(answer(nodes, word, rest)), flush=True)


def answer(nodes: Cluster, node: str, command: str) -> list[object]:
    """Run a command on a node; gives exit code and output, or the name of the error and its message."""
    try:
        if command == "start":
            nodes[node].start()
            return list(nodes[node].execute("echo started"))
        if command == "block":
            nodes[node].block()
            return []
        return list(nodes[node].execute(command, timeout=60))
    except Exception as error:  # noqa: BLE001 - handed to the test as it is
        return [type(error).__name__, "".join(traceback.format_exception(error))]


def boot_and_fork() -> None:
    """A fork of the test process that outlives it must not keep its sandbox alive."""
    with boot(alpha=None, beta=None) as nodes:
        nodes["alpha"].succeed("true")
        sleeper = os.fork()
        if sleeper == 0:
            threading.Event().wait()
        print(json.dumps({**pids(nodes), "sleeper": sleeper}), flush=True)
        sys.stdin.read()


def pids(nodes: Cluster) -> dict[str, int]:
    """Every process of the run by its part."""
    found = {f"{machine.name} leader": machine.leader_pid for machine in nodes.machines}
    found["warden"] = children(os.getpid())[0]
    found["init"] = children(found["warden"])[0]
    for pid in children(found["init"]):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        machine = [word.partition("=")[2] for word in words if word.startswith("--machine=")]
        if machine:
            found[f"{machine[0]} nspawn"] = pid
        else:
            group = Path(f"/proc/{pid}/cgroup").read_text().rstrip()
            if group.endswith("payload/pytest-nspawn"):
                number = group.rpartition("/node-")[2].partition("-")[0]
                found[f"agent {number}"] = pid
            else:
                found["template"] = pid
                found["wires"] = children(pid)[0]
    return found


def children(pid: int) -> list[int]:
    """The children of a process's main thread."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


if __name__ == "__main__":
    main()
