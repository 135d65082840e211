"""Tests against real Redis servers, real processes and the packaged models."""
