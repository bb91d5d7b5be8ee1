"""fleetmem: which process, on which host, is using the memory, now and over time.

Agentless: it logs in over SSH, in parallel, reads the process table and ships RSS, VSZ and memory percent of every
process to StatsD and Graphite. The main path is `collector.py`; the folders follow the data flow.
"""
