"""Lightning modules: one optimizer step a window, and what makes a resumed run the same run."""
