"""Numbers, addresses and names: who is who in a topology. Pure.

Nodes are numbered from 1 by sorted name; a network is a VLAN number, and one with a name gets the next free number.
Addresses are the NixOS test driver's: 192.168.<vlan>.<number>/24 and 2001:db8:<vlan>::<number>/64.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.frozen import FrozenMap

if TYPE_CHECKING:
    from pytest_nspawn.model import Network, NetworkName, Topology

__all__ = ["Bridge", "Link", "Wiring", "host_name", "identifier", "plan_wiring"]

Interface4: TypeAlias = ipaddress.IPv4Interface
Interface6: TypeAlias = ipaddress.IPv6Interface

_HOST_NUMBER4, _HOST_NUMBER6 = 254, 0xFE
_LAST_VLAN = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A veth: one node's interface in one network."""

    node: str
    network: NetworkName
    ifname: str
    host_ifname: str
    mac: str
    address4: Interface4
    address6: Interface6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A network's bridge, with the host side's addresses: None where the host side is not in it."""

    network: NetworkName
    vlan: int
    ifname: str
    address4: Interface4 | None
    address6: Interface6 | None
    mtu: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """All links and bridges of a topology."""

    bridges: tuple[Bridge, ...]
    links: Mapping[str, tuple[Link, ...]]
    numbers: Mapping[str, int]
    host_names: Mapping[str, str]


def identifier(name: str) -> str:
    """A node's name as a fixture's: what no identifier has becomes `_`."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{text}" if text[:1].isdigit() else text


def host_name(name: str) -> str:
    """A node's name as a host name (hostname(7)): no underscores."""
    return name.replace("_", "-")


def plan_wiring(topology: Topology) -> Wiring:
    """Number and address everything. Raises ConfigError for subnets that overlap or are too small."""
    numbers = {name: index for index, name in enumerate(sorted(topology.nodes), 1)}
    vlans = _vlans(topology)
    subnets = {name: _subnets(network, vlans[name]) for name, network in topology.all_networks.items()}
    _check_overlaps(subnets)
    members = {name: [node for node in numbers if name in topology.networks_of(node)] for name in vlans}
    for name, (subnet4, subnet6) in subnets.items():
        _check_room(name, topology.all_networks[name], subnet4, members[name], numbers)
        _check_room(name, topology.all_networks[name], subnet6, members[name], numbers)
    bridges = tuple(
        _bridge(name, network, vlans[name], *subnets[name]) for name, network in topology.all_networks.items()
    )
    links = {
        node: tuple(
            _link(node, network, index, numbers[node], vlans[network], *subnets[network])
            for index, network in enumerate(topology.networks_of(node), 1)
        )
        for node in numbers
    }
    return Wiring(
        bridges=bridges,
        links=FrozenMap(links),
        numbers=FrozenMap(numbers),
        host_names=FrozenMap({name: host_name(name) for name in numbers}),
    )


def _vlans(topology: Topology) -> dict[NetworkName, int]:
    names = list(topology.all_networks)
    taken = {name for name in names if isinstance(name, int)}
    free: Iterator[int] = (number for number in itertools.count(1) if number not in taken)
    found = {name: name if isinstance(name, int) else next(free) for name in names}
    if any(number > _LAST_VLAN for number in found.values()):
        hint = f"a topology has at most {_LAST_VLAN} networks"
        raise ConfigError(problem="too many networks", value=len(names), hint=hint)
    return found


def _subnets(network: Network, vlan: int) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    return (
        network.subnet4 or ipaddress.IPv4Network(f"192.168.{vlan}.0/24"),
        network.subnet6 or ipaddress.IPv6Network(f"2001:db8:{vlan}::/64"),
    )


def _check_overlaps(
    subnets: Mapping[NetworkName, tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]],
) -> None:
    for (one, mine), (other, theirs) in itertools.combinations(subnets.items(), 2):
        if mine[0].overlaps(theirs[0]) or mine[1].overlaps(theirs[1]):
            pair = next(pair for pair in zip(mine, theirs, strict=True) if pair[0].overlaps(pair[1]))  # type: ignore[arg-type]
            problem = f"networks {one!r} and {other!r} overlap"
            raise ConfigError(problem=problem, value=f"{pair[0]} and {pair[1]}", hint="give one another subnet")


def _check_room(
    name: NetworkName,
    network: Network,
    subnet: ipaddress.IPv4Network | ipaddress.IPv6Network,
    members: list[str],
    numbers: Mapping[str, int],
) -> None:
    last = _last_number(subnet)
    taken = _host_number(subnet) if network.host else None
    for node in members:
        if numbers[node] > last or numbers[node] == taken:
            free = f"{subnet} has no address for node number {numbers[node]}"
            problem = f"network {name!r} has no free address"
            raise ConfigError(problem=problem, node=node, value=free, hint="give the network a larger subnet")


def _last_number(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    """The last usable number: the last IPv4 address is the broadcast's."""
    return subnet.num_addresses - (2 if subnet.version == 4 else 1)


def _host_number(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    return min(_HOST_NUMBER4 if subnet.version == 4 else _HOST_NUMBER6, _last_number(subnet))


def _bridge(
    name: NetworkName,
    network: Network,
    vlan: int,
    subnet4: ipaddress.IPv4Network,
    subnet6: ipaddress.IPv6Network,
) -> Bridge:
    return Bridge(
        network=name,
        vlan=vlan,
        ifname=f"br{vlan}",
        address4=_interface4(subnet4, _host_number(subnet4)) if network.host else None,
        address6=_interface6(subnet6, _host_number(subnet6)) if network.host else None,
        mtu=network.mtu,
    )


def _link(
    node: str,
    network: NetworkName,
    index: int,
    number: int,
    vlan: int,
    subnet4: ipaddress.IPv4Network,
    subnet6: ipaddress.IPv6Network,
) -> Link:
    # 02: locally administered (IEEE 802); the rest tells node, network and name apart.
    digest = hashlib.sha256(f"{node}/{network}".encode()).digest()
    return Link(
        node=node,
        network=network,
        ifname=f"eth{index}",
        # Numbers, not names: 15 bytes hold any of them (IFNAMSIZ).
        host_ifname=f"n{number}v{vlan}",
        mac=":".join(f"{byte:02x}" for byte in (0x02, *digest[:2], vlan, number >> 8 & 0xFF, number & 0xFF)),
        address4=_interface4(subnet4, number),
        address6=_interface6(subnet6, number),
    )


def _interface4(subnet: ipaddress.IPv4Network, number: int) -> Interface4:
    return Interface4((subnet.network_address + number, subnet.prefixlen))


def _interface6(subnet: ipaddress.IPv6Network, number: int) -> Interface6:
    return Interface6((subnet.network_address + number, subnet.prefixlen))
