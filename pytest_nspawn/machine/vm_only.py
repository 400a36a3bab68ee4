"""What the NixOS test driver can do with a virtual machine only; each says so, and the way out."""

from __future__ import annotations

from typing import Any, NoReturn

from pytest_nspawn.errors import UnsupportedError

_NO_SCREEN = "a container has no screen"
_NO_KEYBOARD = "a container has no keyboard"
_NO_QEMU = "there is no QEMU"
_READ = "use wait_for_console_text(), get_console_log() or a command that asks the program"
_TYPE = "use send_console() for its console, or a command"


class _VmOnly:
    """A method that raises UnsupportedError whatever it is given."""

    def __init__(self, reason: str, way_out: str) -> None:
        self.reason = reason
        self._way_out = way_out
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = f"Raise UnsupportedError: {self.reason}; {self._way_out}."

    def __get__(self, machine: VmOnlyMethods | None, owner: type) -> Any:
        if machine is None:
            return self

        def method(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise UnsupportedError(
                node=machine.name, method=self._name, reason=self.reason, way_out=self._way_out
            )

        method.__name__, method.__doc__ = self._name, self.__doc__
        return method


class VmOnlyMethods:
    """The methods of a virtual machine, so that a test which needs one learns what it needs."""

    name: str

    screenshot = _VmOnly(_NO_SCREEN, _READ)
    get_screen_text = _VmOnly(_NO_SCREEN, _READ)
    get_screen_text_variants = _VmOnly(_NO_SCREEN, _READ)
    wait_for_text = _VmOnly(_NO_SCREEN, _READ)
    send_key = _VmOnly(_NO_KEYBOARD, _TYPE)
    send_chars = _VmOnly(_NO_KEYBOARD, _TYPE)
    send_monitor_command = _VmOnly(_NO_QEMU, "use crash(), reboot() or forward_port() for what it was for")
    wait_for_monitor_prompt = _VmOnly(_NO_QEMU, "leave it out: there is nothing to wait for")
    wait_for_qmp_event = _VmOnly(
        _NO_QEMU, "use wait_for_unit(), wait_for_shutdown() or wait_for_console_text()"
    )
    switch_root = _VmOnly("a container has no initrd", "test the booted system: it is ready after start()")


def vm_only_reason(method: str) -> str | None:
    """Why a method needs a virtual machine; None for one that does not."""
    found = vars(VmOnlyMethods).get(method)
    return found.reason if isinstance(found, _VmOnly) else None
