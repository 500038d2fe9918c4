"""What users do while the service runs: events, and the log that keeps them."""
