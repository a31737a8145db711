"""How time and memory of a step grow with questions, answers, context, vocabulary and window."""
