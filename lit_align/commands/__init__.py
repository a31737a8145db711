"""Bodies of the commands beside training and validation, one file each."""
