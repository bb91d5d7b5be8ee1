"""What waits to be delivered: queue, spool, retries, pace."""
