"""In-context pairs of the unified system: examples, a query, and what is to be said about it."""
