"""The paper's tables and figures on one data set: a document of them, as HTML, as Markdown and as Parquet."""
