"""Hosts, StatsD and Graphite on the local machine, for trying and testing. Not needed in production.

`local` starts and stops it all. `host` and `workload`, `statsd`, and `graphite` are its parts; `process` and `limited`
make sure that every part ends. `demo` runs fleetmem against it. `readback` checks what arrived, there or elsewhere.
"""
