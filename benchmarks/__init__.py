"""What is claimed about quality and speed, as commands that print a table and write JSON."""
