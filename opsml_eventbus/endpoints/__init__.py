"""Ends."""
