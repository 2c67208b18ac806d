"""Weights as files: model folders, safetensors, and PyTorch's pickles, read without running anything that they name."""
