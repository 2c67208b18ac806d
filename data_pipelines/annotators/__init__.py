"""Annotations as pictures: exact ones from the renderer, and those that can be computed from a photograph."""
