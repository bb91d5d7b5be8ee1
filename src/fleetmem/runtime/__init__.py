"""The process itself: event loop, threads, programs, files with limits, memory, signals, systemd."""
