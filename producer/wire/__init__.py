"""The contract that producers and workers share: keys, messages, their encoding, and the scripts."""
