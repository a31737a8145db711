"""DPO on top of SFT with a real model: losses, rejected answers and groups, measured on held-out tables."""
