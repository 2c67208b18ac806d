"""Networks that answer from examples by filling the empty part of a picture put together from pictures."""
