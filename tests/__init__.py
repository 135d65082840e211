"""Unit tests need no server; integration tests run on private Redis servers; chaos tests kill what they started."""
