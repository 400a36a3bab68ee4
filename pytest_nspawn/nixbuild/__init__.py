"""NixOS configurations into built systems: all nodes of a topology in one evaluation and one build. The only caller of Nix.

nixpkgs     which one
request     what Nix is asked for, as JSON
nix         its programs; progress: what they say
reads       what an evaluation read; cache: results by that
problems    Nix's errors as ours
facts       built systems as data, and manifests of them
test        an existing NixOS test, evaluated
systems     from a topology with configs to one with systems
"""

from __future__ import annotations

from pytest_nspawn.nixbuild.facts import Facts, Interface, Manifest, facts_of
from pytest_nspawn.nixbuild.systems import Builder, interfaces_of, with_facts
from pytest_nspawn.nixbuild.test import NixTest, Outline, node_of_test, outline_of, test_of

__all__ = [
    "Builder",
    "Facts",
    "Interface",
    "Manifest",
    "NixTest",
    "Outline",
    "facts_of",
    "interfaces_of",
    "node_of_test",
    "outline_of",
    "test_of",
    "with_facts",
]
