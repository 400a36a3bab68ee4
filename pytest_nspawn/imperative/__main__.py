"""`python -m pytest_nspawn.imperative` is `nixos-nspawn`."""

from __future__ import annotations

import sys

from pytest_nspawn.imperative.command import main

sys.exit(main())
