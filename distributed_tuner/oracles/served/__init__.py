"""Models behind an API: OpenAI-compatible servers and vLLM."""
