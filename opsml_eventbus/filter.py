"""One Filter for everything (being built)."""

from __future__ import annotations


class Filter:
    """A predicate over events."""
