"""Scoring runs: what is asked, how it is cut into shards, and how the results become one commit."""
