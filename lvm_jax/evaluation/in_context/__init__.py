"""Answers from examples: masks and words, beside baselines and controls; gradients by question."""
