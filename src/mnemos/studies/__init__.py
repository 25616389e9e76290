"""Every system's headline experiment, scaled down, at its threshold."""
