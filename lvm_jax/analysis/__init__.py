"""What a compiled program costs, read from its own text: FLOPs, bytes, collectives, and the time that they predict."""
