"""One step of each training: retriever, LLM, exit heads."""
