"""Commands in a node, with the NixOS test driver's verbs."""

from __future__ import annotations

import codecs
import select
import threading
import time
from collections.abc import Mapping, Sequence

from pytest_nspawn.errors import CommandFailed, NotRunningError
from pytest_nspawn.machine.context import OUTPUT_TAIL, Context, hidden, seconds_of
from pytest_nspawn.model import CommandResult
from pytest_nspawn.shell import TIMED_OUT, RemoteProcess
from pytest_nspawn.timing import Seconds

__tracebackhide__ = hidden

UNKNOWN = -1
"""What `execute` gives for an exit code that nobody asked for."""

UNHEARD = -2
"""What it gives where not even the output was asked for."""

_LAST_TRY = 5.0
"""Seconds that the last try of a command has when the limit of the wait is reached."""


class Commands:
    """Runs commands and remembers them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
        polled: bool = False,
    ) -> CommandResult:
        """Run a command; `polled` says that it is one try of many."""
        self._context.run_callbacks()
        shell = self._context.shell()
        result = shell.run(
            command,
            timeout=timeout,
            user=user,
            env=env,
            cwd=cwd,
            stdin=stdin,
            meanwhile=self._context.meanwhile(),
        )
        self._context.record(result, polled=polled)
        return result

    def execute(
        self, command: str, *, check_return: bool, check_output: bool, timeout: Seconds | None
    ) -> tuple[int, str]:
        """Exit code and stdout."""
        limit = seconds_of(timeout)
        if not check_output:
            self._detach(command, limit)
            return UNHEARD, ""
        result = self.run(command, timeout=limit)
        return (result.exit_code if check_return else UNKNOWN), result.stdout

    def succeed(self, commands: Sequence[str], timeout: Seconds | None) -> str:
        """The stdout of all. Raises CommandFailed at the first that fails."""
        outputs = []
        for command in commands:
            with self._context.waiting(f"must succeed: {command}"):
                result = self.run(command, timeout=seconds_of(timeout))
                if result.exit_code != 0:
                    raise CommandFailed(result=result) from None
                outputs.append(result.stdout)
        return "".join(outputs)

    def fail(self, commands: Sequence[str], timeout: Seconds | None) -> str:
        """The stdout of all. Raises CommandFailed at the first that succeeds."""
        outputs = []
        for command in commands:
            with self._context.waiting(f"must fail: {command}"):
                result = self.run(command, timeout=seconds_of(timeout))
                if result.exit_code == 0:
                    raise CommandFailed(result=result, expected="a non-zero exit code") from None
                outputs.append(result.stdout)
        return "".join(outputs)

    def wait_until(self, command: str, timeout: Seconds | None, *, success: bool) -> str:
        """Try a command until it succeeds, or fails; gives the stdout of that try."""
        limit = seconds_of(timeout)
        begin = time.monotonic()
        results: list[CommandResult] = []
        cut_short = False

        def attempt(is_last: bool) -> CommandResult | None:
            left = None if limit is None else limit - (time.monotonic() - begin)
            nonlocal cut_short
            if is_last and cut_short:
                return None  # the try before had all the time that there was
            if left is not None:
                left = min(_LAST_TRY, limit or _LAST_TRY) if is_last else max(left, 0.05)
            result = self.run(command, timeout=left, polled=True)
            cut_short = result.exit_code == TIMED_OUT
            if not (cut_short and results):
                results[:] = [result]  # what a whole try said tells more than half a one
            return result if (result.exit_code == 0) == success else None

        what = f"waiting for {'success' if success else 'failure'}: {command}"
        return self._context.retry(
            attempt, timeout=timeout, what=what, last=lambda: _tell(results), interval=(0.01, 0.5)
        ).stdout

    def popen(
        self,
        command: str | Sequence[str],
        *,
        user: str | None,
        env: Mapping[str, str] | None,
        cwd: str | None,
        stdin: bool,
    ) -> RemoteProcess:
        """Start a command that runs on."""
        self._context.run_callbacks()
        return self._context.shell().popen(command, user=user, env=env, cwd=cwd, stdin=stdin)

    def _detach(self, command: str, limit: float | None) -> None:
        """Start a command that nobody waits for; what it prints is read, or it would stop."""
        process = self.popen(command, user=None, env=None, cwd=None, stdin=False)
        name = f"command of {self._context.node}"
        threading.Thread(target=self._drain, args=(process, limit), name=name, daemon=True).start()

    def _drain(self, process: RemoteProcess, limit: float | None) -> None:
        begin = time.monotonic()
        stderr, code = b"", None
        try:
            open_fds = {process.stdout.fileno(), process.stderr.fileno()}
            while open_fds:
                left = None if limit is None else begin + limit - time.monotonic()
                ready = select.select(list(open_fds), [], [], None if left is None else max(left, 0.0))[0]
                if not ready:
                    process.kill()
                    code, limit = TIMED_OUT, None
                for stream in (process.stdout, process.stderr):
                    if stream.fileno() in ready:
                        data = stream.read(1 << 16)
                        if not data:
                            open_fds.discard(stream.fileno())
                        elif stream is process.stderr:
                            stderr = (stderr + data)[-OUTPUT_TAIL:]
            ended = process.wait()
        except NotRunningError:
            # It ended with its node: nobody asked to hear of it.
            return
        finally:
            process.close()
        self._context.record(
            CommandResult(
                command=process.command,
                exit_code=ended if code is None else code,
                stdout="",
                stderr=codecs.decode(stderr, errors="replace"),
                duration=time.monotonic() - begin,
                node=self._context.node,
            )
        )


def _tell(results: Sequence[CommandResult]) -> str | None:
    """What the last try of a command came to, for the message of a wait that failed."""
    if not results:
        return None
    result = results[-1]
    lines = [f"exit code {result.exit_code}"]
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if tail := text.strip()[-1000:]:
            lines.append(f"{name}: {tail}")
    return "\n".join(lines)
