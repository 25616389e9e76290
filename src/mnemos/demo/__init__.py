"""The main job from end to end, step by step: train, read, survive, recall, correct, forget, evict."""
