"""Record files: framing, offset index, `tf.train.Example`, tar members, manifest; what a record means is a schema's."""
