"""The frozen base, its adapters, the policy and its references, attention over a forest."""
