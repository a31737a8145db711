"""Numbers about numbers: intervals and paired tests; no model."""
