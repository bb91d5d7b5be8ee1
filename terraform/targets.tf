# The hosts to collect from. Nothing of fleetmem is on them: they let in a key, and run a workload worth watching.
locals {
  target_releases = [for index in range(var.target_count) : var.target_ubuntu[index % length(var.target_ubuntu)]]

  target_user_data = join("\n", ["#cloud-config", yamlencode({
    write_files = var.target_workload ? [for place, file in local.workload_files : {
      path        = place
      permissions = "0644"
      encoding    = "b64"
      content     = filebase64(file)
    }] : []
    runcmd = var.target_workload ? [
      ["systemctl", "daemon-reload"],
      concat(["systemctl", "enable", "--now"], [for name in local.workloads : "fleetmem-workload@${name}.service"]),
    ] : []
  })])

  workloads = ["steady", "leaky", "fork-storm"]
  workload_files = {
    "/etc/systemd/system/fleetmem-workload@.service" = "${path.module}/files/fleetmem-workload@.service"
    "/opt/fleetmem/workload.py"                      = "${path.module}/../src/fleetmem/lab/workload.py"
  }
}

resource "aws_key_pair" "operator" {
  key_name_prefix = "${var.name}-"
  public_key      = trimspace(var.ssh_public_key)
}

resource "aws_instance" "target" {
  count                       = var.target_count
  ami                         = local.ami_ids[local.target_releases[count.index]]
  instance_type               = var.target_instance_type
  subnet_id                   = aws_subnet.public[count.index % length(aws_subnet.public)].id
  vpc_security_group_ids      = [aws_security_group.target.id]
  key_name                    = aws_key_pair.operator.key_name
  user_data_base64            = local.user_data.target
  user_data_replace_on_change = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 8 # GiB, as the image has it; moto wants it said
    encrypted   = true
  }

  tags        = { Name = "${var.name}-target-${count.index + 1}", Role = "target", Ubuntu = local.target_releases[count.index] }
  volume_tags = { Name = "${var.name}-target-${count.index + 1}" }

  lifecycle {
    ignore_changes = [ami] # otherwise each new build of Ubuntu would replace all of them

    precondition {
      condition     = local.user_data_bytes.target <= local.max_user_data_bytes
      error_message = "The user data of the targets has ${local.user_data_bytes.target} bytes; EC2 takes ${local.max_user_data_bytes}."
    }
  }
}
