"""A task is a source of batches and a score."""
