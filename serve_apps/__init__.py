"""The endpoint: the batch job's core over HTTP, on Ray Serve."""
