"""Stage 4: from everything that a host said to what is worth storing. Pure."""
