"""Instructions whose following a program can verify, in the manner of IFEval (Zhou et al. 2023, arXiv:2311.07911)."""
