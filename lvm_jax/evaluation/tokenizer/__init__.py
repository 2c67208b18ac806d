"""Scores of a tokenizer: how much of an image survives it."""
