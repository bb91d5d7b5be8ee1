locals {
  login_user = "ubuntu"

  inventory = [for index, target in aws_instance.target : {
    name    = "${var.name}-target-${index + 1}"
    address = target.public_ip
    port    = 22
    user    = local.login_user
    groups  = ["target"]
    labels = { # as --inventory ec2: calls them
      ec2_instance_id = target.id
      ec2_region      = var.region
      ec2_zone        = target.availability_zone
      Role            = "target"
      Ubuntu          = local.target_releases[index]
    }
  }]
}

output "inventory" {
  description = "The targets as fleetmem reads them: fleetmem hosts --inventory terraform:terraform."
  value       = local.inventory
}

output "ssh_config" {
  description = "For ssh -F: the hosts by name. The key is given with -i, or in a file that includes this one."
  value = join("", [for host in concat(
    [for target in local.inventory : { name = target.name, address = target.address }],
    [{ name = "${var.name}-graphite", address = aws_eip.graphite.public_ip }],
  ) : "Host ${host.name}\n    HostName ${host.address}\n    User ${local.login_user}\n"])
}

output "graphite_host" {
  description = "The Graphite host's name in ssh_config."
  value       = "${var.name}-graphite"
}

output "graphite_url" {
  description = "Graphite, with a certificate that the host made for itself."
  value       = "https://${aws_eip.graphite.public_ip}"
}

output "grafana_url" {
  description = "Grafana, likewise. User admin; the password is in /srv/fleetmem/grafana.env on the host."
  value       = "https://${aws_eip.graphite.public_ip}:3000"
}

output "statsd_endpoint" {
  description = "StatsD (UDP) for a fleetmem outside of the VPC."
  value       = "${aws_eip.graphite.public_ip}:8125"
}

output "statsd_private_endpoint" {
  description = "StatsD (UDP) for a fleetmem within the VPC."
  value       = "${aws_instance.graphite.private_ip}:8125"
}

output "carbon_endpoint" {
  description = "Carbon's lines (TCP); pickles are at port 2004."
  value       = "${aws_eip.graphite.public_ip}:2003"
}

output "ami_ids" {
  description = "The images that new hosts start from, by Ubuntu release."
  value       = local.ami_ids
}
