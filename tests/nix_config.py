"""What Nix is told (NIX_CONFIG, nix.conf(5)) for builds of tests and benchmarks."""

from __future__ import annotations

NIX_CONFIG = """\
sandbox = false
substituters =
build-users-group =
"""
"""A machine may have nothing but Nix itself: no namespaces for its sandbox, no network, no group of users to build as."""
