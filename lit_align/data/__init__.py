"""Conversations to windows of token forests."""
