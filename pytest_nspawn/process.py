"""Programs on the machine itself: the only importer of subprocess. Each gets an explicit environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PACKAGE_HOME = str(Path(__file__).resolve().parent.parent)


def run(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and capture what it prints; its exit code is the caller's to judge.

    Raises FileNotFoundError where there is no such program, subprocess.TimeoutExpired after `timeout` seconds.
    """
    return subprocess.run(
        list(argv),
        env=dict(environment) if environment is not None else None,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def run_visibly(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end that shows its progress on stderr; only what it prints on stdout is captured.

    Raises FileNotFoundError where there is no such program.
    """
    return subprocess.run(
        list(argv),
        env=dict(environment) if environment is not None else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )


def spawn_module(
    module: str, argument: str, *, prefix: Sequence[str] = (), pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `main()` of a module of this package in a fresh interpreter, in a session of its own.

    The interpreter is isolated (-I) and without site-packages (-S): it starts in 15 ms, and nothing in the user's
    environment or directory changes what it loads. `prefix` is a command that runs it (systemd-run).
    """
    program = f"import sys; sys.path.insert(0, {_PACKAGE_HOME!r}); from {module} import main; main()"
    return subprocess.Popen(
        [*prefix, sys.executable, "-I", "-S", "-X", "utf8", "-c", program, argument],
        env={key: value for key, value in os.environ.items() if key in _KEPT_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=list(pass_fds),
        start_new_session=True,
    )


_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


def run_aloud(
    argv: Sequence[str], *, environment: Mapping[str, str], on_stderr: Callable[[str], None]
) -> tuple[int, str]:
    """Run a program that takes long; each line of its stderr is handed on as it comes. Gives exit code and stdout.

    Whoever interrupts it (Ctrl-C) ends the program too. Raises FileNotFoundError where there is none.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stdout:
        process = subprocess.Popen(
            list(argv),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            if process.stderr is not None:
                for line in process.stderr:
                    on_stderr(line)
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            if process.stderr is not None:
                process.stderr.close()
        stdout.seek(0)
        return code, stdout.read()
