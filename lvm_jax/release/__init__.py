"""Trained models as a folder to hand on: small, checked, and described by its own numbers."""
