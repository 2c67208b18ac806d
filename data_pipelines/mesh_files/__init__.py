"""Mesh files: each format into surfaces that the renderer draws."""
