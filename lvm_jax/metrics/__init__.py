"""Scores as mergeable states, and what they are made of: image quality and the Frechet distance."""
