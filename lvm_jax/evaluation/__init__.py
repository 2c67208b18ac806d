"""Evaluators, which score a subject: in `lvm` decoders of visual sentences, in `tokenizer` tokenizers."""
