"""The one training loop, with its optimizer, checkpoints and telemetry. It knows tasks only by their protocol."""
