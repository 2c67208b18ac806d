"""Reads the cost of a compiled program from its text: FLOPs, bytes, collectives, and a prediction of its time."""
