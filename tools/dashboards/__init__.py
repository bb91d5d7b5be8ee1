"""Generator of the Grafana dashboards that fleetmem carries: `python -m dashboards` writes their templates.

`fleet`, `host`, `process` and `collector` say what is on them; `graphite` and `promql` ask, by the names that the sinks
give; `grafana` makes JSON of it.
"""
