"""The retriever: interaction graph, GCN embeddings, and the index of similar users."""
