"""What people have to know to read the numbers. Shown with the panels that they belong to."""

SHARED_PAGES = (
    "Memory of a process is its resident set size (RSS): pages in RAM. A page that processes share counts in each of "
    "them, so the sum over processes is more than what they take, and may be more than the host has (PostgreSQL, "
    "forked workers). What the host has left is told by *available*."
)
IN_USE = "In use is total less available, as the kernel tells both: memory that cannot be had without swapping."
HIGHEST = "Chosen by the highest point in this time range."
GROWTH = (
    "How far above its lowest point in this time range each one is; chosen are those that are farthest above it in the "
    "end. A leak climbs from left to right; what comes and goes looks like a saw."
)
COARSE = "Where fleetmem sends commands only (`--detail command`), a row is a command, and its pid is `*`."
PROTOCOL_2 = "Only hosts that are sampled with `--protocol 2` tell it."
SINCE_BOOT = (
    "The kernel counts since boot. Through StatsD, a host that comes back after an absence may show a peak: its total "
    "was 0 while it was away."
)
