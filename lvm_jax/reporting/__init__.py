"""What people look at: labelled images, charts, and the self-contained page of a run."""
