"""Losses, each a sum with its weight: next-token cross-entropy, and those of the VQGAN."""
