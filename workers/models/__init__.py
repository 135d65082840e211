"""Models behind the small protocols of `workers.tasks`: adapters over fastembed, and the packaged offline models."""
