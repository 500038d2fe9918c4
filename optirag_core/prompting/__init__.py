"""Histories, similar users and candidates -> prompt tokens, split into a shared prefix and one suffix per candidate."""
