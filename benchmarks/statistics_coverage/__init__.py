"""Coverage, false alarms and power of lit_align.metrics.statistics, by simulation."""
