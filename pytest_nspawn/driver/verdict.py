"""Whether a NixOS test can run as containers, and what says that it cannot."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_nspawn.driver.script import Script, locate
from pytest_nspawn.machine.vm_only import vm_only_reason
from pytest_nspawn.nixbuild import Outline

_OPTIONS = (
    ("boot.binfmt.", "the kernel's interpreters are the machine's"),
    ("boot.initrd.", "a container has no initrd"),
    ("boot.", "a container runs on the machine's kernel"),
    ("security.", "the kernel's security modules are the machine's"),
    ("services.", "a container has no screen"),
    ("swapDevices", "a container cannot swap"),
    ("zramSwap.", "a container cannot swap"),
    ("virtualisation.emptyDiskImages", "a container has no disks"),
    ("virtualisation.fileSystems", "a container has no disks"),
    ("virtualisation.virtualbox.", "a container loads no kernel modules"),
    ("virtualisation.", "there is no QEMU"),
)
"""Why an option needs a virtual machine, by the first of these that it begins with."""

_NEED_SUCCESS = ("succeed", "wait_until_succeeds")

_OF_A_KERNEL = {
    "insmod": "a container loads no kernel modules",
    "kexec": "a container has no kernel of its own",
    "systemctl kexec": "a container has no kernel of its own",
    "losetup": "a container has no loop devices",
    "modprobe": "a container loads no kernel modules",
    "swapon": "a container cannot swap",
}
"""Programs that cannot succeed in a container, and why."""

_PROGRAM = re.compile(
    rf"(?:^|[;&|(]|\bsudo|\bexec)\s*({'|'.join(_OF_A_KERNEL)})\b"
    r"(?! --?(?:a|all|l|list|s|show|help|version)\b)(?![^\n;&|]*\|\|)",
    re.MULTILINE,
)
"""One that is run, but not only to list what there is, and not where its failure is passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that keeps a test from running as containers; nothing: it can."""

    test: str
    nodes: Sequence[str]
    obstacles: Sequence[str]

    @property
    def can_run(self) -> bool:
        """Whether it can."""
        return not self.obstacles

    @property
    def reason(self) -> str:
        """Why it cannot, on one line."""
        return f"{self.test} needs a virtual machine: {'; '.join(self.obstacles)}"

    def __str__(self) -> str:
        if self.can_run:
            return f"{self.test}: runs as containers ({', '.join(self.nodes)})"
        return "\n".join(
            [f"{self.test}: needs a virtual machine:", *(f"  - {each}" for each in self.obstacles)]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VmOnlyCall:
    """A call in a script that only a virtual machine can answer."""

    shown: str
    line: int
    reason: str


def script_of(test: Outline) -> Script:
    """A test's script, at its lines in the .nix file where those can be found."""
    return locate(test.script, file=test.file, line=test.line, name=test.name)


def judge(test: Outline) -> Verdict:
    """Say whether a test can run as containers, before anything is built. Raises ConfigError where its script is no Python."""
    script = script_of(test)
    options = [
        f"node {name}: {option}{_why(option)}"
        for name, found in sorted(test.vm_only.items())
        for option in found
    ]
    place = os.path.basename(script.filename)
    calls = [f"{place}:{call.line}: {call.shown} ({call.reason})" for call in vm_only_calls(script)]
    return Verdict(test=test.name, nodes=test.nodes, obstacles=(*options, *calls))


def _why(option: str) -> str:
    return next((f" ({reason})" for prefix, reason in _OPTIONS if option.startswith(prefix)), "")


def vm_only_calls(script: Script) -> list[VmOnlyCall]:
    """The calls of a script that need a virtual machine, in its order. Raises ConfigError where it is no Python."""
    tree = script.tree()
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    calls = [
        found
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr not in own
        for found in (*_by_method(node, node.func.attr), *_by_command(node, node.func.attr))
    ]
    return sorted(calls, key=lambda call: call.line)


def _by_method(call: ast.Call, method: str) -> Iterator[VmOnlyCall]:
    reason = vm_only_reason(method)
    if reason is not None:
        yield VmOnlyCall(shown=f"{method}()", line=call.lineno, reason=reason)


def _by_command(call: ast.Call, method: str) -> Iterator[VmOnlyCall]:
    """A command that has to succeed, as far as it stands in the script; one that boots another kernel is only executed."""
    for argument in call.args if method in (*_NEED_SUCCESS, "execute") else ():
        words = [each.value for each in ast.walk(argument) if isinstance(each, ast.Constant)]
        match = _PROGRAM.search(" ".join(word for word in words if isinstance(word, str)))
        if match is not None and (method != "execute" or match[1].endswith("kexec")):
            yield VmOnlyCall(
                shown=f"{method}({match[1]!r})", line=argument.lineno, reason=_OF_A_KERNEL[match[1]]
            )
