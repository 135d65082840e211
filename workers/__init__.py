"""The worker pools: one engine for both tasks, a model behind a small protocol, and the processes around them."""
