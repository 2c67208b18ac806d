"""A local page where you ask a decoder with pictures. `experiments/demo.py` starts it."""
