"""What Nix is told (NIX_CONFIG, nix.conf(5)) for builds of tests and benchmarks."""

from __future__ import annotations

SANDBOXED = """\
substituters =
build-users-group =
"""
"""A machine may have nothing but Nix itself: no network, no group of users to build as."""

NIX_CONFIG = f"{SANDBOXED}sandbox = false\n"
"""Quicker, for what the stand-in builds. Real builders run as root then, and leave bytecode in the store."""
