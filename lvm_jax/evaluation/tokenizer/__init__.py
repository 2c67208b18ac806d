"""Scores for tokenizers: how much of an image survives."""
