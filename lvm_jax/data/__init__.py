"""Data on disk and on its way to the devices: visual sentences for the decoder, raw images for the tokenizer, pages
and their words.

Import the room you need, such as `from lvm_jax.data.sentences.token_loader import TokenLoader`. From the bottom up:

- `shuffle`, `splits`, `dealing`, `mixture`: the arithmetic of order and shares; no files;
- `step_loader`: order and resume, for every loader;
- `records`: record files, their index, shards and the manifest: bytes and named columns, no meaning;
- `text_tokenizer`: text to ids, by a folder that the user brings;
- `sentences`, `images`, `image_text`: what records mean, and a loader for each. None imports another.
"""
