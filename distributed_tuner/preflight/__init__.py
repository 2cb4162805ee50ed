"""What is checked and projected before anything is spent."""
