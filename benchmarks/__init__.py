"""What Headrace claims to be fast or small, measured as ratios side by side in one run: `python -m benchmarks`."""
