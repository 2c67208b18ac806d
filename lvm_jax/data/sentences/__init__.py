"""Visual sentences: their records, how they are packed into rows, and their batches."""
