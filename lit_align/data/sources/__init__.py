"""One file a data set: rows to records, nothing else."""
