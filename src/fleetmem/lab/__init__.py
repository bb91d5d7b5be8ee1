"""Hosts, StatsD and Graphite on the local machine, for trying and testing. Not needed in production.

`local` starts and stops it all; `host` and `workload`, `statsd`, and `graphite` are its parts; `process` and `limited`
see to it that every part ends; `demo` runs fleetmem against it, and `readback` checks what arrived, there or elsewhere.
"""
