"""Visual sentences on disk and on their way to the devices; raw images for the tokenizer.

Import the room you need: `from lvm_jax.data.loader import TokenLoader`. From the bottom up: `example`,
`tfrecord` (framing, CRC, index), `visual_sentence` (the record), `manifest` (what a data set says of itself),
`shards` (many files as one sequence), `packing` (sentences to rows), `steps` (order and resume), `loader`, `images`.
"""
