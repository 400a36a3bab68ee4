"""The commands of `python -m pytest_nspawn` that are about one test or one node, without pytest.

Each module has `add(commands)`, which adds its parser, and what that runs.
"""

from __future__ import annotations
