"""The targets of fuzz.py, which runs them for longer, with few examples each."""

from __future__ import annotations

import os

import pytest

import fuzz

EXAMPLES = {"parser": 20, "http": 100, "http_costs": 15, "transport": 60, "requests": 100, "redirects": 100, "core": 25}


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_target(target: str) -> None:
    """No example of a target fails."""
    fuzz.run(target, EXAMPLES[target], derandomize="CI" in os.environ)
