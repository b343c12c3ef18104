"""Fixtures of the whole suite."""

from opsml_server import opsml_server

__all__ = ["opsml_server"]
