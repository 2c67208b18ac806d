"""Trained models as something to hand on: one folder, small, checked, and described by its own numbers."""
