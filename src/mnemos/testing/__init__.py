"""The laws of memories and stores, shipped so that yours can be held to them too."""
