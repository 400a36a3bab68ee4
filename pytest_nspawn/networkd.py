"""What a node is told of its networks, as text: systemd-networkd's files and /etc/hosts. Pure."""

from __future__ import annotations

from pytest_nspawn.naming import Link, Wiring

_NETWORK = """\
[Match]
Name={ifname}

[Link]
RequiredForOnline=yes

[Network]
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
"""

# The node's number makes its addresses unique; waiting for duplicates would hold a boot for over a second.
_ADDRESS = """
[Address]
Address={address}
DuplicateAddressDetection=none
"""

_LOCAL = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
"""


def network_files(wiring: Wiring, node: str) -> dict[str, str]:
    """A .network file for each interface of a node (systemd.network(5))."""
    return {f"50-{link.ifname}.network": _network(link) for link in wiring.links[node]}


def _network(link: Link) -> str:
    addresses = (_ADDRESS.format(address=each) for each in (link.address4, link.address6) if each is not None)
    return _NETWORK.format(ifname=link.ifname) + "".join(addresses)


def hosts_file(wiring: Wiring, node: str) -> str:
    """/etc/hosts of a node (hosts(5)): every node, by an address in a network that both are in where there is one."""
    own = [link.network for link in wiring.links[node]]
    lines = [_LOCAL]
    for other in wiring.numbers:
        links = [link for link in wiring.links[other] if link.address4 is not None]
        if not links:
            lines += [f"127.0.1.1 {_names(wiring, other)}\n"] if other == node else []
            continue
        nearest = next((link for network in own for link in links if link.network == network), links[0])
        addresses = (each for each in (nearest.address4, nearest.address6) if each is not None)
        lines += [f"{each.ip} {_names(wiring, other)}\n" for each in addresses]
    return "".join(lines)


def _names(wiring: Wiring, node: str) -> str:
    host_name, domain = wiring.host_names[node], wiring.domains.get(node)
    qualified = [f"{host_name}.{domain}"] if domain else []
    return " ".join(dict.fromkeys((*qualified, host_name, node)))
