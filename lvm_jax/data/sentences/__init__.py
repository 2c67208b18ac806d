"""Visual sentences: their records, packing into rows, and batches."""
