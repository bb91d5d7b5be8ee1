// Node's StatsD for fleetmem. The image starts it with the file of this name (STATSD_INTERFACE=udp).
{
  port: 8125,
  address: "0.0.0.0",
  // Without a password: let nobody but this container reach it.
  mgmt_address: "127.0.0.1",
  mgmt_port: 8126,

  // fleetmem's --interval, and the finest step of storage-schemas.conf.
  flushInterval: 10000,
  // A gauge that nobody sends any more ends after three flushes, instead of keeping its last value for ever. More than
  // one: a sample that comes a moment late must make no gap.
  deleteGauges: true,
  gaugesMaxTTL: 3,
  deleteCounters: true,
  deleteTimers: true,
  deleteSets: true,

  backends: ["./backends/graphite"],
  graphiteHost: "127.0.0.1",
  graphitePort: 2003
}
