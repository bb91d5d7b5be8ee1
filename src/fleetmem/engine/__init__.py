"""Samplers in processes of their own: the messages, the process, and who looks after it."""
