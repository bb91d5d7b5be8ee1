"""What is wrong, or will be, and the command that fixes it.

    examiner  asks hosts         ─> hosts     ─┐
    machine   asks this machine  ─> machine   ─┼─> findings ─> cli prints them
    pipeline  sends canaries     ─> verdicts  ─┘

Modules on the left do the asking; what the answers mean is decided on the right, without I/O.
"""
