"""Hosts, StatsD and Graphite on the local machine, for trying and testing. Not needed in production."""
