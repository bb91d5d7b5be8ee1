"""The collector's own counters, what they come to, whether it does its work, and what goes wrong by a bug."""
