"""Grafana dashboards: fleet, host, process, collector, for Graphite and for Prometheus. Pure.

`fleet`, `host`, `process` and `collector` say what is on them; `graphite` and `promql` ask, by the names that the sinks
give; `grafana` makes JSON of it.
"""
