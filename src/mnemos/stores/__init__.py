"""Durable records behind one protocol: the embedded store on disk and its twin in RAM."""
