"""How a node is started, as data: the operations of its root and the arguments of systemd-nspawn. Pure.

What is left out of a boot, and why that is safe in a container, is in `LEFT_OUT`; `full_boot` leaves nothing out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_nspawn import plan
from pytest_nspawn.errors import ConfigError
from pytest_nspawn.images.base import Image, Place
from pytest_nspawn.model import Node
from pytest_nspawn.naming import Link, host_name
from pytest_nspawn.plan import Operation

LEFT_OUT: Mapping[str, str] = {
    "systemd-tmpfiles-setup-dev.service": "systemd-nspawn has made /dev, and a container may not make more devices; waiting for it is nearly all of a boot's time",
    "systemd-tmpfiles-setup-dev-early.service": "the same, from systemd 255 on",
    "dev-hugepages.mount": "huge pages belong to the machine's kernel; nothing in a container may set them up",
    "run-lock.mount": "/run is the node's own file system in memory already",
    "systemd-remount-fs.service": "the root is mounted as it has to be; there is no fstab entry for it",
    "systemd-firstboot.service": "there is nobody to ask; the host name and machine id are given",
    "systemd-machine-id-commit.service": "the machine id is a file from the start",
    "systemd-hwdb-update.service": "a container has no hardware and no udev",
    "systemd-boot-random-seed.service": "the kernel's entropy is the machine's",
}
"""Units that are masked for a boot, and why nothing in a container misses them."""

_UPDATED = (
    "# Written by pytest-nspawn: the image is as its packages left it, see systemd-update-done.service(8).\n"
)
_UPDATE_SETTINGS = ("/etc/sysusers.d/", "/etc/ld.so.conf", "/etc/udev/hwdb.d/")
_TRANSIENT = ("/run/", "/tmp/", "/dev/", "/proc/", "/sys/")
_LIBRARY = "/usr/lib/systemd/system"
_NETWORKD_LINKS = {
    "multi-user.target.wants/systemd-networkd.service": "systemd-networkd.service",
    "sockets.target.wants/systemd-networkd.socket": "systemd-networkd.socket",
    "network-online.target.wants/systemd-networkd-wait-online.service": "systemd-networkd-wait-online.service",
    "dbus-org.freedesktop.network1.service": "systemd-networkd.service",
}
# The node counts as booted once its addresses are there: or the first command would race with networkd.
_ONLINE = {"multi-user.target.wants/network-online.target": "network-online.target"}
_INSTALL = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that the sandbox has to know to boot a node."""

    name: str
    operations: Sequence[Operation]
    argv: Sequence[str]
    environment: Mapping[str, str]
    links: Sequence[Mapping[str, Any]]
    limits: Mapping[str, float]
    tmpfs_size: int
    owner: int
    blob: bytes
    kept: Mapping[str, str]

    def message(self) -> dict[str, Any]:
        """The fields of the request; the blob travels beside it."""
        return {
            "operations": list(self.operations),
            "argv": list(self.argv),
            "environment": dict(self.environment),
            "links": list(self.links),
            "limits": dict(self.limits),
            "tmpfs_size": self.tmpfs_size,
            "owner": self.owner,
        }

    def describe(self) -> str:
        """The plan, a line an operation."""
        return "\n".join([*map(plan.describe, self.operations), " ".join(self.argv)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a node is told of the others."""

    host_name: str
    links: Sequence[Link]
    bridges: Mapping[int | str, str]
    mtus: Mapping[int | str, int | None]
    hosts: str
    network_files: Mapping[str, str]
    shared: str
    """A directory of the machine that all nodes see at /tmp/shared."""
    confined: bool = False
    """Whether the sandbox is in a user namespace."""


def plan_launch(
    name: str,
    node: Node,
    image: Image,
    surroundings: Surroundings,
    *,
    home: str,
    owner: int,
    full_boot: bool = False,
    adjust: Callable[[Node, list[str], str], None] | None = None,
) -> Launch:
    """Plan a node's boot; `owner` is the first id of its user namespace, 0 for none. Raises ConfigError."""
    blob = _Blob()
    place = Place(home=home, size=node.root_bytes, owner=owner, hosts=surroundings.hosts, content=blob.add)
    files = _files(name, node, image, surroundings, full_boot=full_boot)
    operations = [
        *image.operations(place),
        *(
            plan.write_in_root(place.root, path, blob.add(content), mode=mode, owner=owner)
            for path, (content, mode) in files.items()
        ),
        *(
            plan.symlink_in_root(place.root, path, target, owner=owner)
            for path, target in _links(node, image, surroundings).items()
        ),
        plan.directory_in_root(place.root, "/var/log/journal", mode=0o755, owner=owner),
        *(
            plan.write_in_root(home, f"credentials/{key}", blob.add(content), mode=0o600, owner=0)
            for key, content in node.credentials.items()
        ),
        *(
            plan.bind(
                str(bind.source.resolve()),
                f"{home}/binds/{index}",
                read_only=bind.read_only,
                idmap=place.idmap if bind.idmap else None,
                recursive=True,
            )
            for index, bind in enumerate(node.binds.values())
        ),
        plan.bind(surroundings.shared, f"{home}/shared", read_only=False),
    ]
    extra = list(node.nspawn_options)
    if adjust is not None:
        adjust(node, extra, name)
    argv = _arguments(node, image, surroundings, place, extra, full_boot=full_boot)
    return Launch(
        name=name,
        operations=operations,
        argv=argv,
        environment={
            "SYSTEMD_NSPAWN_LOCK": "0",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            "TERM": "dumb",
        },
        links=[
            {
                "ifname": link.ifname,
                "host_ifname": link.host_ifname,
                "mac": link.mac,
                "bridge": surroundings.bridges[link.network],
                "mtu": surroundings.mtus[link.network],
            }
            for link in surroundings.links
        ],
        limits=limits_of(node),
        tmpfs_size=node.root_bytes,
        owner=owner,
        blob=bytes(blob),
        kept=image.kept,
    )


def limits_of(node: Node) -> dict[str, float]:
    """A node's limits by controller: bytes, processes, processors."""
    given = {"memory": node.memory_bytes, "pids": node.tasks, "cpu": node.cpus}
    return {name: value for name, value in given.items() if value is not None}


class _Blob(bytearray):
    """The contents of all files of a request, one after the other."""

    def add(self, content: bytes) -> tuple[int, int]:
        """Append; gives offset and length."""
        place = len(self), len(content)
        self.extend(content)
        return place


def _arguments(
    node: Node,
    image: Image,
    surroundings: Surroundings,
    place: Place,
    extra: Sequence[str],
    *,
    full_boot: bool,
) -> list[str]:
    environment = [f"--setenv={key}={value}" for key, value in image.environment.items()]
    argv = [
        "systemd-nspawn",
        "--quiet",
        "--settings=no",
        "--register=no",
        "--keep-unit",
        "--notify-ready=yes",
        "--console=interactive",
        "--private-network",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        f"--kill-signal={image.shutdown_signal}",
        f"--directory={place.root}",
        # A NixOS system may call itself what systemd takes for no name; it sets that by itself.
        f"--machine={host_name(surroundings.host_name)}",
        f"--hostname={host_name(surroundings.host_name)}",
        *environment,
    ]
    if place.owner:
        argv += [f"--private-users={place.owner}:65536", "--private-users-ownership=off"]
    for index, (path, bind) in enumerate(node.binds.items()):
        option = "--bind-ro" if bind.read_only else "--bind"
        target = path.replace("\\", "\\\\").replace(":", "\\:")
        argv.append(f"{option}={place.home}/binds/{index}:{target}")
    argv.append(f"--bind={place.home}/shared:/tmp/shared")
    if surroundings.confined:
        # Newer systemd-nspawn leaves the machine's mounts before it makes the node's, and the kernel mounts /proc and
        # /sys in a user namespace only where whole ones are seen. The same goes for services that have their own.
        argv += [f"--bind-ro={path}:/run/.{name}" for name, path in plan.KERNEL_FILES.items()]
    argv += [f"--load-credential={key}:{place.home}/credentials/{key}" for key in node.credentials]
    argv += extra
    argv += image.payload
    if image.kernel_arguments and not full_boot:
        argv += [f"systemd.mask={unit}" for unit in LEFT_OUT]
    return argv


def _files(
    name: str, node: Node, image: Image, surroundings: Surroundings, *, full_boot: bool
) -> dict[str, tuple[bytes, int]]:
    """Everything that is written to the root, the test's own last."""
    texts = {
        "/etc/machine-id": f"{uuid.uuid4().hex}\n",
        "/etc/hostname": f"{surroundings.host_name}\n",
        "/etc/hosts": surroundings.hosts,
    }
    if not full_boot and not any(path.startswith(_UPDATE_SETTINGS) for path in node.files):
        # Newer than /usr: ldconfig, sysusers, catalogues and hwdb are not made again (ConditionNeedsUpdate=).
        texts |= {"/etc/.updated": _UPDATED, "/var/.updated": _UPDATED}
    given = {} if image.configures_network else surroundings.network_files
    network_files = node.network_units or given
    texts |= {f"/etc/systemd/network/{key}": text for key, text in network_files.items()}
    texts |= {f"{image.units}/{key}": text for key, text in node.units.items()}
    for path in node.files:
        if path.startswith(_TRANSIENT):
            raise ConfigError(
                problem="files: this directory begins empty at every boot, so a file in it would be hidden",
                node=name,
                value=path,
                hint="use /etc/tmpfiles.d, or binds",
            )
    return {path: (text.encode(), 0o644) for path, text in texts.items()} | dict(node.files)


def _links(node: Node, image: Image, surroundings: Surroundings) -> dict[str, str]:
    """Symbolic links that say which units start with the node."""
    links = {}
    if image.enables_networkd:
        given = _ONLINE if surroundings.links and not node.network_units else {}
        enabled = {**_NETWORKD_LINKS, **given}
        links = {f"{image.units}/{path}": f"{_LIBRARY}/{unit}" for path, unit in enabled.items()}
    for unit, text in node.units.items():
        for key, values in _install_section(text).items():
            for value in values:
                if key == "Alias":
                    links[f"{image.units}/{value}"] = unit
                elif key in _INSTALL:
                    links[f"{image.units}/{value}.{_INSTALL[key]}/{unit}"] = f"{image.units}/{unit}"
    return links


def _install_section(text: str) -> dict[str, list[str]]:
    """The lists of a unit's [Install] section; an empty assignment resets one (systemd.unit(5))."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        words = line.strip()
        if words.startswith("["):
            section = words
        elif section == "[Install]" and "=" in words and not words.startswith(("#", ";")):
            key, _, value = words.partition("=")
            values = found.setdefault(key.strip(), [])
            if value.strip():
                values += value.split()
            else:
                values.clear()
    return found
