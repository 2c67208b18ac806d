"""Scores for decoders: next-token loss and its baselines, perplexity against context, visual benchmarks."""
