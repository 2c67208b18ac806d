"""Causal attention: plain, chunked, by an accelerator's kernel, split over a mesh, and over a KV cache."""
