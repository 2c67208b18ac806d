"""What a score is: next-token loss beside baselines, perplexity against context, reconstruction, tasks in context."""
