"""Raw images for the tokenizer: where they lie, and their batches."""
