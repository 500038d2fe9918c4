"""CTR models that the LLM is compared with (arXiv:2501.02173v2, table 2), one file each, trained on all samples."""
