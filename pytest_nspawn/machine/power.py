"""Power of a node: on, off, cut."""

from __future__ import annotations

import contextlib
import time

from pytest_nspawn.errors import BootError, MachineError, SandboxError
from pytest_nspawn.machine.context import WATCHED, Context, hidden, seconds_of
from pytest_nspawn.timing import Deadline, Seconds

__tracebackhide__ = hidden


class Power:
    """Starts and stops one node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._container = context.container

    def start(self) -> None:
        """Boot, without waiting."""
        self._container.start()

    def shutdown(self) -> None:
        """Shut down cleanly; nothing where it does not run."""
        if not self._container.running:
            return
        # A systemd that has only just begun knows no signals yet; one that never gets ready is shut down all the same.
        with contextlib.suppress(BootError):
            self._container.wait_ready()
        try:
            with self._context.nested("shutting down"):
                self._container.power_off()
        except TimeoutError as error:
            hint = "it did not shut down in time; crash() cuts its power"
            raise MachineError(node=self._context.node, problem=f"{hint} ({error})") from error

    def wait_stopped(self, timeout: Seconds | None) -> None:
        """Wait until the node has shut down; nothing where it does not run."""
        if not self._container.running:
            return
        what = "waiting for the node to power off"
        limit = seconds_of(timeout)
        deadline = Deadline(limit)
        with self._context.waiting(what):
            while True:
                self._context.run_callbacks()
                left = deadline.remaining()
                try:
                    self._container.wait_stopped(
                        min(WATCHED, WATCHED if left is None else left) if self._context.callbacks else left
                    )
                except TimeoutError as error:
                    if deadline.expired:
                        raise self._context.expired(deadline, limit, what, str(error)) from None
                else:
                    return

    def reboot(self) -> None:
        """Reboot and wait until commands work again."""
        with self._context.nested("rebooting"):
            self._container.reboot()

    def crash(self) -> None:
        """Cut the power; nothing where it does not run."""
        if self._container.running:
            with self._context.nested("cutting the power"):
                self._container.kill()

    def freeze(self, frozen: bool) -> None:
        """Stop the node where it is, or let it run on."""
        self._container.wait_ready()
        with self._context.nested("freezing" if frozen else "thawing"):
            self._container.freeze(frozen)

    def sleep(self, seconds: float) -> None:
        """Wait, and look at what watches over the test meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._context.run_callbacks()
            time.sleep(min(left, WATCHED) if self._context.callbacks else left)

    def release(self) -> None:
        """Cut the power, for good."""
        # A sandbox that is gone has taken its nodes along.
        with contextlib.suppress(SandboxError):
            self.crash()
