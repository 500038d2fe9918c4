"""OptiRAG: score user-item pairs with a retrieval-augmented, early-exit LLM (arXiv:2501.02173v2)."""

__version__ = "0.1.0"
