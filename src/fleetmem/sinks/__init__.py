"""Stage 5: where points go. Names and text (`naming`, `series`, `formats`) are pure, transports (`udp`, `tcp`) apart.

`runner` owns the queue, the retries and the counters of one sink.
"""
