"""Re-embedding: a source of records, the bulk lane, a sink of vectors; memory flat at any length."""
