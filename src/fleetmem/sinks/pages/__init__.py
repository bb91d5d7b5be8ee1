"""Pages over HTTP: metrics for Prometheus, health."""
