"""Record files: framing, index, `tf.train.Example`, tar members, manifest. A schema says what a record means."""
