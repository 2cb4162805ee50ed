"""Clients of outside services: OpenAI-compatible servers and the Hub."""
