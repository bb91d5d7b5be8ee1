"""Ways to a receiver: UDP, TCP, Unix sockets."""
