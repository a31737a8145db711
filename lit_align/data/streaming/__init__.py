"""Data that are not read before training: the order of a stream, its epochs, and the windows of a rank."""
