"""The command nixos-nspawn on a machine that is made of dictionaries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

import pytest

from pytest_nspawn.errors import ConfigError, HostError
from pytest_nspawn.imperative import command, nix
from pytest_nspawn.imperative.command import Command
from pytest_nspawn.imperative.container import Container, Source, source_of
from pytest_nspawn.imperative.machine import RealMachine
from pytest_nspawn.imperative.steps import Delete, Directory, Run, Step, Write, run

WEB = Container("web")
SETTINGS = "/etc/systemd/nspawn/web.nspawn"
PROFILES = "/nix/var/nix/profiles/per-nspawn"


class Became(Exception):  # noqa: N818 - it is no error
    """Another program took the terminal."""


@dataclass
class FakeMachine:
    """Files, links and running units; nix-env, systemctl and machinectl as far as the command needs them."""

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    builds: list[tuple[Sequence[str], object]] = field(default_factory=list)
    built: str = "/nix/store/new-system"

    def do(self, step: Step) -> None:
        self.done.append(str(step))
        match step:
            case Write():
                self.files[str(step.path)] = step.text
            case Delete():
                self.files.pop(str(step.path), None)
                self.links.pop(str(step.path), None)
            case Run():
                self._run(step.argv)
            case Directory():
                pass

    def _run(self, argv: tuple[str, ...]) -> None:
        match argv:
            case ("nix-env", "--profile", profile, "--set", system):
                number = 1 + sum(link.startswith(f"{profile}-") for link in self.links)
                self.links[f"{profile}-{number}-link"] = system
                self.links[profile] = f"{PurePosixPath(profile).name}-{number}-link"
            case ("systemctl", "start" | "restart", unit):
                self.running.add(unit)
            case ("systemctl", "stop", unit):
                self.running.discard(unit)
            case ("machinectl", "remove", name):
                self.files = {
                    path: text
                    for path, text in self.files.items()
                    if not path.startswith(f"/var/lib/machines/{name}/")
                }

    def build(self, argv: Sequence[str]) -> str:
        if "request" not in argv:
            self.builds.append((argv, None))
            return json.dumps([{"outputs": {"out": self.built}}])
        request = Path(argv[argv.index("request") + 1])
        self.builds.append((argv, json.loads(request.read_text(encoding="utf-8"))))
        return self.built

    def ask(self, *argv: str) -> str:
        assert argv[:2] == ("systemctl", "is-active")
        return "active" if argv[2] in self.running else "inactive"

    def text(self, path: PurePosixPath) -> str | None:
        return self.files.get(str(path))

    def names(self, directory: PurePosixPath) -> list[str]:
        paths = [PurePosixPath(path) for path in (*self.files, *self.links)]
        inside = {path.relative_to(directory).parts[0] for path in paths if directory in path.parents}
        return sorted(inside)

    def target(self, link: PurePosixPath) -> str | None:
        return self.links.get(str(link))

    def become(self, *argv: str) -> NoReturn:
        raise Became(argv)


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def call(machine: FakeMachine, *arguments: str, dry_run: bool = False) -> None:
    Command(machine, dry_run=dry_run).run(command._parser().parse_args(arguments))


def create(machine: FakeMachine) -> None:
    call(machine, "create", "web", "--config", "/srv/web.nix", "--nixpkgs", "/srv/nixpkgs")


def test_create_builds_a_configuration_and_starts_it(machine: FakeMachine) -> None:
    create(machine)
    [(argv, request)] = machine.builds
    assert argv[0] == "nix-build"
    assert nix.EXPRESSION.is_file()
    assert request == {"name": "web", "config": "/srv/web.nix", "nixpkgs": "/srv/nixpkgs"}
    assert machine.links[f"{PROFILES}/web-1-link"] == "/nix/store/new-system"
    assert machine.running == {"systemd-nspawn@web.service"}
    assert "/var/lib/machines/web/etc/machine-id" in machine.files
    assert machine.done.index("systemctl daemon-reload") < machine.done.index(
        "systemctl start systemd-nspawn@web.service"
    )


def test_the_settings_name_the_profile_so_that_no_generation_changes_them(machine: FakeMachine) -> None:
    create(machine)
    settings = machine.files[SETTINGS]
    assert f"BindReadOnly={PROFILES}/web:/nix/system\n" in settings
    assert "Parameters=/nix/system/init\n" in settings
    assert "PrivateUsers=pick\n" in settings
    assert "/nix/store/new-system" not in settings
    call(machine, "update", "web")
    assert machine.files[SETTINGS] == settings


def test_update_uses_what_the_container_was_made_from(machine: FakeMachine) -> None:
    create(machine)
    machine.built = "/nix/store/newer-system"
    call(machine, "update", "web")
    assert machine.builds[0][1] == machine.builds[1][1]
    assert machine.links[f"{PROFILES}/web"] == "web-2-link"
    assert machine.done[-1] == "systemctl restart systemd-nspawn@web.service"


def test_update_and_rollback_leave_a_stopped_container_stopped(machine: FakeMachine) -> None:
    create(machine)
    call(machine, "stop", "web")
    call(machine, "update", "web", "--flake", "github:owner/repository#web")
    call(machine, "rollback", "web")
    assert machine.running == set()
    assert machine.done[-1] == f"nix-env --profile {PROFILES}/web --rollback"
    assert source_of(machine.files[SETTINGS]) == Source(flake="github:owner/repository#web")


def test_rollback_restarts_a_running_container(machine: FakeMachine) -> None:
    create(machine)
    call(machine, "rollback", "web")
    assert machine.done[-1] == "systemctl restart systemd-nspawn@web.service"


def test_a_container_of_a_built_system_has_nothing_to_update_from(machine: FakeMachine) -> None:
    call(machine, "create", "web", "--system", "/nix/store/some-system", "--no-start")
    assert machine.builds == []
    assert machine.running == set()
    with pytest.raises(ConfigError) as caught:
        call(machine, "update", "web")
    assert "--config, --flake or --system" in str(caught.value)


def test_remove_leaves_nothing_and_nobody_elses(machine: FakeMachine) -> None:
    others = {"/etc/systemd/nspawn/other.nspawn": "[Exec]\n", f"{PROFILES}/web-2-1-link": "/nix/store/other"}
    machine.files["/etc/systemd/nspawn/other.nspawn"] = "[Exec]\n"
    machine.links[f"{PROFILES}/web-2-1-link"] = "/nix/store/other"
    create(machine)
    call(machine, "update", "web")
    call(machine, "remove", "web")
    assert machine.files | machine.links == others
    assert machine.running == set()


def test_list_knows_only_containers_of_this_command(machine: FakeMachine) -> None:
    machine.files["/etc/systemd/nspawn/declared.nspawn"] = "[Exec]\nBoot=no\n"
    create(machine)
    call(machine, "create", "database", "--system", "/nix/store/db", "--no-start")
    assert Command(machine).table() == [
        "NAME      STATE     GENERATION  SYSTEM",
        "database  inactive  1           /nix/store/db",
        "web       active    1           /nix/store/new-system",
    ]


@pytest.mark.parametrize("verb", ["start", "stop", "shell", "rollback", "remove", "update"])
def test_a_declared_container_is_not_touched(machine: FakeMachine, verb: str) -> None:
    machine.files[SETTINGS] = "[Exec]\nBoot=no\n"
    with pytest.raises(ConfigError):
        call(machine, verb, "web")
    with pytest.raises(ConfigError):
        create(machine)
    assert machine.done == []


def test_create_takes_no_directory_that_is_in_use(machine: FakeMachine) -> None:
    machine.files["/var/lib/machines/web/etc/os-release"] = ""
    with pytest.raises(ConfigError) as caught:
        create(machine)
    assert "/var/lib/machines/web" in str(caught.value)
    assert machine.builds == []


def test_where_etc_is_a_part_of_the_store_settings_are_volatile(machine: FakeMachine) -> None:
    machine.links["/etc/systemd/nspawn"] = "/etc/static/systemd/nspawn"
    create(machine)
    assert "/run/systemd/nspawn/web.nspawn" in machine.files


def test_shell_takes_the_terminal(machine: FakeMachine) -> None:
    create(machine)
    with pytest.raises(Became) as caught:
        call(machine, "shell", "web", "/bin/sh", "-c", "id")
    assert caught.value.args[0] == ("machinectl", "shell", "--quiet", "web", "/bin/sh", "-c", "id")


def test_a_dry_run_prints_the_steps_and_does_none(
    machine: FakeMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    call(machine, "create", "web", "--config", "/srv/web.nix", dry_run=True)
    assert machine.done == []
    assert machine.builds == []
    assert f"write {SETTINGS}" in capsys.readouterr().out


def test_what_nix_builds_must_be_one_store_path(machine: FakeMachine) -> None:
    machine.built = "/nix/store/one\n/nix/store/two"
    with pytest.raises(HostError):
        create(machine)
    assert machine.done == []


@pytest.mark.parametrize(
    "printed", ["", "text", "[]", '[{"outputs": {"out": "/nix/store/a", "doc": "/nix/store/b"}}]']
)
def test_what_a_flake_is_built_to_must_be_one_store_path(printed: str) -> None:
    with pytest.raises(HostError):
        nix.built(Source(flake="/srv"), printed)


@pytest.mark.parametrize("name", ["", "-web", "web-", "a/b", "..", "w" * 65, "web\n"])
def test_names_are_machines_names(name: str) -> None:
    with pytest.raises(ConfigError):
        Container(name)


@pytest.mark.parametrize(
    ("reference", "attribute"),
    [
        ("/srv", '/srv#nixosConfigurations."web".config.system.build.toplevel'),
        ("/srv#db", '/srv#nixosConfigurations."db".config.system.build.toplevel'),
        ("/srv#a.b", "/srv#a.b.config.system.build.toplevel"),
        ("/srv#a.config.system.build.toplevel", "/srv#a.config.system.build.toplevel"),
    ],
)
def test_a_flake_reference_leads_to_a_system(reference: str, attribute: str) -> None:
    assert nix.attribute(reference, WEB) == attribute
    assert nix.build(WEB, Source(flake=reference), "unused")[-1] == attribute


def test_relative_references_are_the_working_directorys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command._flake(".#web") == f"{tmp_path}#web"
    assert command._flake("#web") == f"{tmp_path}#web"
    assert command._flake("github:owner/repository") == "github:owner/repository"


def test_exactly_one_source() -> None:
    with pytest.raises(ConfigError):
        Source()
    with pytest.raises(ConfigError):
        Source(config="/a", flake="/b")
    with pytest.raises(ConfigError):
        Source(config="/a\n[Exec]\nPrivateUsers=no")


def test_a_real_machine_does_steps(tmp_path: Path) -> None:
    machine = RealMachine()
    path = PurePosixPath(tmp_path, "a/b")
    machine.do(Write(path, "text"))
    assert machine.text(path) == "text"
    assert machine.names(path.parent) == ["b"]
    machine.do(Delete(path.parent))
    assert machine.text(path) == "text"
    machine.do(Delete(path))
    machine.do(Delete(path.parent))
    machine.do(Delete(path))
    assert machine.names(PurePosixPath(tmp_path)) == []
    assert machine.names(path) == []
    with pytest.raises(HostError) as caught:
        machine.do(run("sh", "-c", "echo no >&2; exit 3"))
    assert "exit status 3: no" in str(caught.value)
    with pytest.raises(HostError):
        machine.do(run("/no/such/program"))
    assert machine.build(["echo", "/nix/store/x"]) == "/nix/store/x"
    with pytest.raises(HostError):
        machine.build(["false"])
