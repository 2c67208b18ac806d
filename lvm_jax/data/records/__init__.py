"""Record files: framing, offset index, `tf.train.Example`, tar members, manifest."""
