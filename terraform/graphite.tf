# One host with Graphite, StatsD and Grafana in containers, behind a TLS proxy. Its files are those in deploy/ and in
# files/, unchanged; bootstrap.sh makes secrets and certificate on the host, so that neither is here nor in the state.
# The dashboards come later, over SSH (`make remote-dashboards`): they would not fit into the user data, and a changed one must
# not replace the host.
locals {
  graphite_home = "/srv/fleetmem"
  deploy        = "${path.module}/../deploy"

  graphite_files = {
    "bootstrap.sh"                           = "${path.module}/files/bootstrap.sh"
    "compose.yaml"                           = "${path.module}/files/compose.yaml"
    "no-admin.sh"                            = "${path.module}/files/no-admin.sh"
    "proxy.conf"                             = "${path.module}/files/proxy.conf"
    "graphite/carbon.conf"                   = "${local.deploy}/graphite/carbon.conf"
    "graphite/storage-aggregation.conf"      = "${local.deploy}/graphite/storage-aggregation.conf"
    "graphite/storage-schemas.conf"          = "${local.deploy}/graphite/storage-schemas.conf"
    "graphite/udp.js"                        = "${local.deploy}/graphite/udp.js"
    "provisioning/dashboards/files.yaml"     = "${local.deploy}/grafana/provisioning/dashboards/files.yaml"
    "provisioning/datasources/graphite.yaml" = "${local.deploy}/grafana/provisioning/datasources/graphite.yaml"
  }

  graphite_user_data = join("\n", ["#cloud-config", yamlencode({
    package_update = true
    packages       = ["docker.io", "docker-compose-v2"]
    write_files = concat(
      [for place, file in local.graphite_files : {
        path        = "${local.graphite_home}/${place}"
        permissions = endswith(place, ".sh") ? "0755" : "0644"
        encoding    = "b64"
        content     = filebase64(file)
      }],
      [for unit in ["fleetmem-prune.service", "fleetmem-prune.timer"] : {
        path        = "/etc/systemd/system/${unit}"
        permissions = "0644"
        encoding    = "b64"
        content     = filebase64("${path.module}/files/${unit}")
      }],
    )
    runcmd = [["${local.graphite_home}/bootstrap.sh"]]
  })])

  user_data           = { target = base64gzip(local.target_user_data), graphite = base64gzip(local.graphite_user_data) }
  max_user_data_bytes = 16384 # EC2's limit, before base64: three bytes are four characters
  user_data_bytes     = { for name, text in local.user_data : name => floor(length(trim(text, "=")) * 3 / 4) }
}

resource "aws_instance" "graphite" {
  ami                         = local.ami_ids[local.graphite_release]
  instance_type               = var.graphite_instance_type
  subnet_id                   = aws_subnet.public[0].id
  vpc_security_group_ids      = [aws_security_group.graphite.id]
  key_name                    = aws_key_pair.operator.key_name
  iam_instance_profile        = aws_iam_instance_profile.graphite.name
  user_data_base64            = local.user_data.graphite
  user_data_replace_on_change = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2
    http_put_response_hop_limit = 1          # not for the containers: none of them needs the role
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.graphite_disk_gib
    encrypted   = true
  }

  tags        = { Name = "${var.name}-graphite", Role = "graphite" }
  volume_tags = { Name = "${var.name}-graphite" }

  lifecycle {
    ignore_changes = [ami]

    precondition {
      condition     = local.user_data_bytes.graphite <= local.max_user_data_bytes
      error_message = "The user data of the Graphite host has ${local.user_data_bytes.graphite} bytes; EC2 takes ${local.max_user_data_bytes}."
    }
  }
}

# Stays the same when the host is stopped or replaced.
resource "aws_eip" "graphite" {
  domain   = "vpc"
  instance = aws_instance.graphite.id
  tags     = { Name = "${var.name}-graphite" }
}
