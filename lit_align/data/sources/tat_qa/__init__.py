"""TAT-QA: questions about a table and its passages, with rejected answers that the prompt alone tells apart."""
