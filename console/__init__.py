"""What the command line starts and shows: the embedded Redis, both pools on one machine, the demo, the tables."""
