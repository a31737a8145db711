"""Preference losses: what a pair of answers to one prompt costs."""
