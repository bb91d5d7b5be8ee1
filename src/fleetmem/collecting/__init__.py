"""What the collector has of each host, and the limits of the work that a host makes."""
