"""Numbers, addresses and names: who is who in a topology. Pure.

Nodes are numbered from 1 by sorted name; a network is a VLAN number, and one with a name gets the next free number.
Addresses are the NixOS test driver's: 192.168.<vlan>.<number>/24 and 2001:db8:<vlan>::<number>/64.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pytest_nspawn.errors import ConfigError
from pytest_nspawn.frozen import FrozenMap

if TYPE_CHECKING:
    from pytest_nspawn.model import Network, NetworkName, Topology

__all__ = ["Bridge", "Link", "Wanted", "Wiring", "host_name", "identifier", "plan_wiring"]

Interface4: TypeAlias = ipaddress.IPv4Interface
Interface6: TypeAlias = ipaddress.IPv6Interface
Subnet: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Subnets: TypeAlias = tuple[int, ipaddress.IPv4Network, ipaddress.IPv6Network]

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
    address4: Interface4 | None
    address6: Interface6 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An interface that a node's configuration asks for; one that is not `addressed` is left to the node."""

    ifname: str
    network: NetworkName
    addressed: bool = True


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
    domains: Mapping[str, str]


def identifier(name: str) -> str:
    """A node's name as a fixture's: what no identifier has becomes `_`."""
    return re.sub(r"^[^A-Za-z_]|[^A-Za-z0-9_]", "_", name)


def host_name(name: str) -> str:
    """A node's name as a host name (hostname(7)): no underscores."""
    return name.replace("_", "-")


def plan_wiring(
    topology: Topology,
    interfaces: Mapping[str, Sequence[Wanted]] = FrozenMap[str, Sequence[Wanted]](),
    *,
    host_names: Mapping[str, str] = FrozenMap[str, str](),
    domains: Mapping[str, str] = FrozenMap[str, str](),
) -> Wiring:
    """Number and address everything. Raises ConfigError for subnets that overlap or are too small.

    Nodes that are not in `interfaces` have eth1, eth2, ... in the order of their networks.
    """
    numbers = {name: index for index, name in enumerate(sorted(topology.nodes), 1)}
    wanted = {name: list(interfaces.get(name) or _usual(topology.networks_of(name))) for name in numbers}
    networks = topology.all_networks
    subnets = _subnets(topology, networks)
    bridges: dict[NetworkName, Bridge] = {}
    for name, network in networks.items():
        members = {
            node: numbers[node]
            for node in numbers
            if any(each.network == name and each.addressed for each in wanted[node])
        }
        vlan, subnet4, subnet6 = subnets[name]
        host4 = _host_address(subnet4, _HOST_NUMBER4, taken=network.host, name=name, members=members)
        host6 = _host_address(subnet6, _HOST_NUMBER6, taken=network.host, name=name, members=members)
        bridges[name] = Bridge(
            network=name,
            vlan=vlan,
            ifname=f"br{vlan}",
            address4=ipaddress.IPv4Interface(host4) if host4 else None,
            address6=ipaddress.IPv6Interface(host6) if host6 else None,
            mtu=network.mtu,
        )
    links = {
        node: tuple(
            _link(node, each, index, number, subnets[each.network])
            for index, each in enumerate(wanted[node], 1)
        )
        for node, number in numbers.items()
    }
    return Wiring(
        bridges=tuple(bridges.values()),
        links=FrozenMap(links),
        numbers=FrozenMap(numbers),
        host_names=FrozenMap({name: host_names.get(name) or host_name(name) for name in numbers}),
        domains=FrozenMap(domains),
    )


def _usual(networks: Sequence[NetworkName]) -> list[Wanted]:
    return [Wanted(ifname=f"eth{index}", network=network) for index, network in enumerate(networks, 1)]


def _subnets(topology: Topology, networks: Mapping[NetworkName, Network]) -> dict[NetworkName, Subnets]:
    """A VLAN number and two subnets a network. One with a name gets the first number whose subnets are free."""
    found: dict[NetworkName, Subnets] = {}
    custom: list[Subnet] = [
        subnet
        for network in networks.values()
        for subnet in (network.subnet4, network.subnet6)
        if subnet is not None
    ]
    free = [number for number in range(1, _LAST_VLAN + 1) if number not in networks]
    for name, network in networks.items():
        candidates = [name] if isinstance(name, int) else free
        for vlan in candidates:
            subnet4 = network.subnet4 or ipaddress.IPv4Network(f"192.168.{vlan}.0/24")
            subnet6 = network.subnet6 or ipaddress.IPv6Network(f"2001:db8:{vlan}::/64")
            fresh = [
                subnet for subnet in (subnet4, subnet6) if subnet not in (network.subnet4, network.subnet6)
            ]
            if isinstance(name, int) or not any(_overlap(one, other) for one in fresh for other in custom):
                break
        else:
            hint = f"a topology has at most {_LAST_VLAN} networks"
            raise ConfigError(problem=f"no free number for network {name!r}", value=len(networks), hint=hint)
        if vlan in free:
            free.remove(vlan)
        found[name] = (vlan, subnet4, subnet6)
    for (one, mine), (other, theirs) in itertools.combinations(found.items(), 2):
        for first, second in ((mine[1], theirs[1]), (mine[2], theirs[2])):
            if _overlap(first, second):
                problem = f"networks {one!r} and {other!r} overlap"
                hint = "give one of them another subnet, as in Network(subnet4=..., subnet6=...)"
                nodes = (node for node in topology.nodes if {one, other} & {*topology.networks_of(node)})
                value = f"{first} and {second}"
                raise ConfigError(problem=problem, node=next(nodes, None), value=value, hint=hint)
    return found


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one[0] <= other[-1] and other[0] <= one[-1]  # type: ignore[operator]


def _host_address(
    subnet: Subnet, usual: int, *, taken: bool, name: NetworkName, members: Mapping[str, int]
) -> str | None:
    """The host side's address, `taken` or not; raises ConfigError where it leaves a node without one.

    That is the usual one, or the subnet's last: where it does not fit, or a node has it. IPv4's very last is the
    broadcast address.
    """
    last = subnet.num_addresses - (2 if subnet.version == 4 else 1)
    offsets = {node: _offset(subnet, number) for node, number in members.items()}
    host = last if usual > last or usual in offsets.values() else usual
    for node, offset in offsets.items():
        if offset > last or (taken and offset == host):
            problem = f"network {name!r} has no free address for this node, number {members[node]}"
            hint = f"{len(members)} nodes want addresses there: give the network a larger subnet"
            raise ConfigError(problem=problem, node=node, value=str(subnet), hint=hint)
    return f"{subnet[host]}/{subnet.prefixlen}" if taken else None


def _offset(subnet: Subnet, number: int) -> int:
    """Where a node is in a subnet. For IPv6 the NixOS driver writes the number out: node 10 is ::10, which is 16."""
    return number if subnet.version == 4 else int(str(number), 16)


def _link(node: str, wanted: Wanted, index: int, number: int, subnets: Subnets) -> Link:
    vlan, subnet4, subnet6 = subnets
    # 02: locally administered (IEEE 802); the rest tells topologies, networks and nodes apart.
    digest = hashlib.sha256(f"{node}/{wanted.network}/{wanted.ifname}".encode()).digest()
    address4 = (
        Interface4((subnet4[_offset(subnet4, number)], subnet4.prefixlen)) if wanted.addressed else None
    )
    address6 = (
        Interface6((subnet6[_offset(subnet6, number)], subnet6.prefixlen)) if wanted.addressed else None
    )
    return Link(
        node=node,
        network=wanted.network,
        ifname=wanted.ifname,
        # Numbers, not names: 15 bytes hold any of them (IFNAMSIZ).
        host_ifname=f"n{number}i{index}v{vlan}",
        mac=":".join(f"{byte:02x}" for byte in (0x02, *digest[:2], vlan, number >> 8 & 0xFF, number & 0xFF)),
        address4=address4,
        address6=address6,
    )
