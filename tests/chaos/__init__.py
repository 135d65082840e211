"""Tests that kill what they started, over and over, and count the losses."""
