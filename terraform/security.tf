# Who may reach what: the operator's networks and the VPC, nobody else. Ports that Docker publishes go past a firewall on
# the host, so these groups are the only one.
locals {
  trusted_cidrs = distinct(concat(var.operator_cidrs, [var.vpc_cidr]))

  # StatsD, and carbon's lines (2003) and pickles (2004), take data from everybody and know no password.
  graphite_ports = {
    ssh     = { protocol = "tcp", from = 22, to = 22 }
    https   = { protocol = "tcp", from = 443, to = 443 }
    carbon  = { protocol = "tcp", from = 2003, to = 2004 }
    grafana = { protocol = "tcp", from = 3000, to = 3000 }
    statsd  = { protocol = "udp", from = 8125, to = 8125 }
  }
  graphite_rules = {
    for pair in setproduct(keys(local.graphite_ports), local.trusted_cidrs) :
    "${pair[0]} from ${pair[1]}" => merge(local.graphite_ports[pair[0]], { cidr = pair[1] })
  }

  # Security updates, and on the Graphite host the images of its containers. The clock and DNS are Amazon's own, which
  # no group filters.
  outgoing_ports = { http = 80, https = 443 }
}

resource "aws_security_group" "target" {
  name_prefix = "${var.name}-target-"
  description = "Hosts to collect from: SSH from the operator and the VPC"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-target" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "target_ssh" {
  for_each          = toset(local.trusted_cidrs)
  security_group_id = aws_security_group.target.id
  description       = "SSH from ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = each.key
}

resource "aws_vpc_security_group_egress_rule" "target" {
  for_each          = local.outgoing_ports
  security_group_id = aws_security_group.target.id
  description       = "Security updates over ${each.key}"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_security_group" "graphite" {
  name_prefix = "${var.name}-graphite-"
  description = "Graphite, StatsD and Grafana: from the operator and the VPC"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-graphite" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "graphite" {
  for_each          = local.graphite_rules
  security_group_id = aws_security_group.graphite.id
  description       = each.key
  ip_protocol       = each.value.protocol
  from_port         = each.value.from
  to_port           = each.value.to
  cidr_ipv4         = each.value.cidr
}

resource "aws_vpc_security_group_egress_rule" "graphite" {
  for_each          = local.outgoing_ports
  security_group_id = aws_security_group.graphite.id
  description       = "Security updates and container images over ${each.key}"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
  cidr_ipv4         = "0.0.0.0/0"
}

# For a fleetmem that runs on the Graphite host.
resource "aws_vpc_security_group_egress_rule" "graphite_ssh" {
  security_group_id = aws_security_group.graphite.id
  description       = "SSH to the targets"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = var.vpc_cidr
}
