"""What a compiled program costs, read from the program itself: FLOPs, bytes, collectives, and the time they predict."""
