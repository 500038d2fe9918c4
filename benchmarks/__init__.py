"""One command per claim; results are dated JSON with hardware and commit."""
