"""Where arrays live: the device mesh, the table of logical axis rules, and the start of a run on several hosts."""
