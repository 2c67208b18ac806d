"""The one training loop, with its optimizer, checkpoints and hooks; it knows tasks only by their protocol."""
