"""Progressive preference training beside its alternatives."""
