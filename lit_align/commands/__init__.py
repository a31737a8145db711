"""The bodies of the commands beside fit and validate."""
