"""What a fleet costs: the collector, the network, the sinks and what they store. Pure."""
