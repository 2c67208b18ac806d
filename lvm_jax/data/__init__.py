"""Data on disk and on its way to the devices: visual sentences for the decoder, raw images for the tokenizer.

Import the room you need, such as `from lvm_jax.data.sentences.token_loader import TokenLoader`. From the bottom up:

- `shuffle`, `splits`, `dealing`, `mixture`: arithmetic of order and shares, which knows no file;
- `step_loader`: order and resume, for every loader;
- `records`: record files, their index, shards and the manifest; they know bytes and named columns;
- `sentences`, `images`: what records mean, and the loader of each. They do not know each other.
"""
