"""Pictures and words: conversations about pictures, their records, rows of tokens, and batches."""
