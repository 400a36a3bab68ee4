"""The command line of `nixos-nspawn`: NixOS containers by hand, with networkd's default networking."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath as Path
from typing import NoReturn

from pytest_nspawn.errors import ConfigError, NspawnError
from pytest_nspawn.imperative import nix, plans
from pytest_nspawn.imperative.container import PROFILES, SETTINGS, Container, Source, is_ours, source_of
from pytest_nspawn.imperative.machine import Machine, RealMachine
from pytest_nspawn.imperative.steps import Step

_GENERATION = re.compile(r"(?P<name>.+)-(?P<number>\d+)-link")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    options = _parser().parse_args(arguments)
    try:
        Command(RealMachine(), dry_run=options.dry_run).run(options)
    except NspawnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nixos-nspawn", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and build nothing")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if named:
            command.add_argument("name", metavar="NAME", help="name of the container and of its machine")
        return command

    create = add("create", "make a container and start it")
    create.add_argument("--no-start", action="store_true", help="only make it")
    update = add("update", "build its system again, or another one, and restart it if it runs")
    for command in (create, update):
        source = command.add_mutually_exclusive_group()
        source.add_argument(
            "--config", metavar="FILE", help="a NixOS module; the container module is imported"
        )
        source.add_argument("--flake", metavar="REF", help="a flake's nixosConfigurations.NAME, as REF#NAME")
        source.add_argument("--system", metavar="PATH", help="a built system in the store")
        command.add_argument("--nixpkgs", metavar="PATH", help="nixpkgs for --config; NIX_PATH's by default")
    add("start", "start it, and wait until it has booted")
    add("stop", "shut it down")
    shell = add("shell", "a shell in it, or a program")
    shell.add_argument("program", metavar="PROGRAM", nargs=argparse.REMAINDER)
    add("rollback", "go back to the system before, and restart it if it runs")
    add("remove", "shut it down and remove it with all that it wrote")
    add("list", "the containers that were made by this command", named=False)
    return parser


class Command:
    """What the commands do, on one machine."""

    def __init__(self, machine: Machine, *, dry_run: bool = False) -> None:
        self._machine = machine
        self._dry_run = dry_run

    def run(self, options: argparse.Namespace) -> None:
        """One command. Raises ConfigError for what the user got wrong, HostError for what the machine did not do."""
        if options.command == "list":
            for line in self.table():
                print(line)
            return
        container = Container(options.name)
        match options.command:
            case "create":
                self.create(container, _source(options), start=not options.no_start)
            case "update":
                given = options.config or options.flake or options.system
                self.update(container, _source(options) if given else None)
            case "start":
                self._known(container)
                self._do(plans.start(container))
            case "stop":
                self._known(container)
                self._do(plans.stop(container))
            case "shell":
                self.shell(container, options.program)
            case "rollback":
                self.rollback(container)
            case "remove":
                self.remove(container)

    def create(self, container: Container, source: Source, *, start: bool) -> None:
        """Raises ConfigError where there is one of that name already, by whomever."""
        for directory in SETTINGS:
            if self._machine.text(container.settings(directory)) is not None:
                raise ConfigError(
                    problem=f"there is a container {container.name} already",
                    hint="`nixos-nspawn update` builds it anew; declared ones belong to the host's configuration",
                )
        if self._machine.names(container.root):
            raise ConfigError(problem=f"{container.root} is in use: it belongs to another machine")
        system = self._build(container, source)
        settings = self._settings_directory()
        machine_id = uuid.uuid4().hex
        self._do(plans.create(container, source, system, settings, machine_id=machine_id, start=start))

    def update(self, container: Container, given: Source | None) -> None:
        """With what it was made from last, unless something else is given."""
        directory, text = self._known(container)
        source = given or source_of(text)
        if source is None:
            raise ConfigError(
                problem=f"{container.name} was made from a built system",
                hint="give --config, --flake or --system",
            )
        system = self._build(container, source)
        self._do(plans.update(container, source, system, directory, running=self._is_running(container)))

    def rollback(self, container: Container) -> None:
        """Raises HostError, Nix's, where there is no generation before."""
        self._known(container)
        self._do(plans.rollback(container, running=self._is_running(container)))

    def remove(self, container: Container) -> None:
        """The container, its profile and what it wrote."""
        directory, _ = self._known(container)
        generations = [PROFILES / name for name in self._generations(container)]
        self._do(plans.remove(container, directory, generations))

    def shell(self, container: Container, program: Sequence[str]) -> NoReturn:
        """Root's login shell, or a program."""
        self._known(container)
        self._machine.become("machinectl", "shell", "--quiet", container.name, *program)

    def table(self) -> list[str]:
        """Name, state, generation and system of each container."""
        rows = [("NAME", "STATE", "GENERATION", "SYSTEM")]
        for name in self._containers():
            container = Container(name)
            state = self._machine.ask("systemctl", "is-active", container.unit)
            link = self._machine.target(container.profile) or ""
            match = _GENERATION.fullmatch(Path(link).name)
            system = self._machine.target(container.profile.parent / link) or "none"
            rows.append((name, state, match["number"] if match else "none", system))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return ["  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows]

    def _containers(self) -> list[str]:
        names = {
            name.removesuffix(".nspawn")
            for directory in SETTINGS
            for name in self._machine.names(directory)
            if name.endswith(".nspawn") and is_ours(self._machine.text(directory / name) or "")
        }
        return sorted(names)

    def _known(self, container: Container) -> tuple[Path, str]:
        """The directory of its .nspawn file, and the file. Raises ConfigError where it is not of this command."""
        for directory in SETTINGS:
            text = self._machine.text(container.settings(directory))
            if text is not None and is_ours(text):
                return directory, text
        known = ", ".join(self._containers()) or "none"
        raise ConfigError(
            problem=f"there is no container {container.name} of this command", hint=f"there are: {known}"
        )

    def _generations(self, container: Container) -> list[str]:
        return [
            name
            for name in self._machine.names(PROFILES)
            if (match := _GENERATION.fullmatch(name)) and match["name"] == container.name
        ]

    def _settings_directory(self) -> Path:
        """/etc, unless NixOS has made a link into the store of it: then what is written is gone at the next boot."""
        permanent, volatile = SETTINGS
        return volatile if self._machine.target(permanent) is not None else permanent

    def _is_running(self, container: Container) -> bool:
        return self._machine.ask("systemctl", "is-active", container.unit) in ("active", "activating")

    def _build(self, container: Container, source: Source) -> str:
        if source.system is not None:
            return source.system
        if self._dry_run:
            return "SYSTEM"
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as request:
            request.write(nix.request(container, source))
            request.flush()
            printed = self._machine.build(nix.build(container, source, request.name))
        return nix.built(source, printed)

    def _do(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if self._dry_run:
                print(step)
            else:
                self._machine.do(step)


def _source(options: argparse.Namespace) -> Source:
    """Paths are the working directory's; a reference to a flake stays one unless it is a relative path."""
    return Source(
        config=os.path.abspath(options.config) if options.config else None,
        flake=_flake(options.flake) if options.flake else None,
        system=os.path.realpath(options.system) if options.system else None,
        nixpkgs=os.path.abspath(options.nixpkgs) if options.nixpkgs else None,
    )


def _flake(reference: str) -> str:
    path, mark, attribute = reference.partition("#")
    if path in ("", ".", "..") or path.startswith(("./", "../")):
        path = os.path.abspath(path or ".")
    return f"{path}{mark}{attribute}"
