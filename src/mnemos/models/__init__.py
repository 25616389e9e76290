"""Memories inside networks."""
