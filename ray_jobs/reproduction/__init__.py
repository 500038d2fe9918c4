"""What `ray_jobs.reproduce` runs: variants of the system, and what is measured of each."""
