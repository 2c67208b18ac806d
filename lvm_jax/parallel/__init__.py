"""Where arrays live: the device mesh, the table of logical axis rules, and start-up on several hosts."""
