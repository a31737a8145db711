"""What happens around training: benchmarks, checkpoints, progress, the record of a run."""
