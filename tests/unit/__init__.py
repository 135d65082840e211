"""Unit tests: no server, no model, no sleep."""
