"""Examples as they are once read, drawn and tokenised: held in memory or mapped from files, and kept for later runs."""
