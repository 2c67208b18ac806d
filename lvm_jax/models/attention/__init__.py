"""Causal attention: plain and chunked, by the accelerator's kernels, split over a mesh, cached."""
