"""Soft prompts: from candidate recipes to rows, to vocabulary, and out of the house."""
