"""One command per claim; results are JSON with hardware, commit and seeds."""
