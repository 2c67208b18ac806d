"""Raw images for the tokenizer: their sources and batches."""
