"""Where the time of a window goes: its parts in per cent, FLOPs, and the rate of the machine."""
