"""Publishers' raw files -> canonical tables, leak-free splits."""
