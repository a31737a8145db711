"""Losses: the preference family and the anchor to a reference; they know only tensors."""
