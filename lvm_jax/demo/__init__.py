"""A local page where you prompt a decoder with pictures; `experiments/demo.py` starts it."""
