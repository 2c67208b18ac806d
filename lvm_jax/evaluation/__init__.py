"""What a score is. An evaluator judges a subject; `lvm` judges decoders of visual sentences, `tokenizer` tokenizers."""
