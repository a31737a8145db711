"""One DPO step beside TRL's DPOTrainer: time, memory, gradients."""
