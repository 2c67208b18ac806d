"""Weights as files: model folders, safetensors, and PyTorch's pickles, read without running code in them."""
