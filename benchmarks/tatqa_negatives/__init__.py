"""How well classifiers that do not read the question tell TAT-QA's chosen from its rejected answers."""
