"""The memories: one published system per file."""
