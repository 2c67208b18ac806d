"""What is measured: mergeable states, throughput, image quality, and where the numbers are written."""
