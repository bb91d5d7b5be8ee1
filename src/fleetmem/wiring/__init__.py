"""Configuration to objects: fleet, outputs, settings of each host, state. The only place that reads configuration."""
