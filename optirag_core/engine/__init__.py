"""Prompt tokens -> p(yes) and exit layer. Needs torch, transformers and pydantic only."""
