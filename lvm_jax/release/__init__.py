"""Packs trained models into a folder to hand on: small, with checksums, and described by measured numbers."""
