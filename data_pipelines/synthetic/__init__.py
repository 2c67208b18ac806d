"""Renderers: scenes, shapes and meshes, as images with exact annotations."""
