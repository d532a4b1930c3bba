"""What the author of a test holds in the hand. Synchronous, no threads."""
