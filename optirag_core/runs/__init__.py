"""Scoring runs: a fixed plan of shards, attempts with receipts, and one commit, so that every pair is there once."""
