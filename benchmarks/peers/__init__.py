"""Other packages' prompt optimizers on the same model, rows and budget: what each would ship, and what it spent."""
