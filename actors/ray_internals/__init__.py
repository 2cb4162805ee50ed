"""Every use of Ray's private parts: each falls back to the public way where another version of Ray differs."""
