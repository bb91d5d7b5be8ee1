"""When each host is sampled, and what comes of it: slots, turns, the log of failures."""
