"""Skill gained against skill lost on the bundled Qwen3."""
