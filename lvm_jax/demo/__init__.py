"""A local page on which a decoder is asked with pictures: `experiments/demo.py` starts it."""
