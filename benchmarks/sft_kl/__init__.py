"""One SFT step with the KL anchor beside other libraries: time, memory, gradients."""
