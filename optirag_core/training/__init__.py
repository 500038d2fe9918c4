"""One step of each training: retriever, LLM, exit features, exit heads, exit policy."""
