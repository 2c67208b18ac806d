"""Scores of a decoder: next-token loss beside baselines, perplexity against context, visual benchmarks."""
