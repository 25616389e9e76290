"""What to let go: eviction policies as small data."""
