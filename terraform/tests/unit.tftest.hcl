# terraform test: no account, no network. What is planned by default, what the variables change, what they refuse.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }

  # eu-central-1c has not got the instance types.
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["eu-central-1a", "eu-central-1b"] }
  }

  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0" }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }

  mock_resource "aws_instance" {
    defaults = { public_ip = "203.0.113.10", private_ip = "10.42.0.10", availability_zone = "eu-central-1a" }
  }

  mock_resource "aws_eip" {
    defaults = { public_ip = "203.0.113.99" }
  }
}

variables {
  operator_cidrs = ["203.0.113.7/32"]
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEsQmYqd5rTHv9Tvc6HeVZQ0nKdnUCOb4w0gyH6G0tGB operator@example.com"
}

run "defaults" {
  command = plan

  assert {
    condition     = length(aws_instance.target) == 3 && length(aws_subnet.public) == 2
    error_message = "Expected three targets in two subnets."
  }

  assert {
    condition     = [for target in aws_instance.target : target.tags.Ubuntu] == ["24.04", "24.04", "24.04"]
    error_message = "Expected the current LTS."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.graphite) == 10 && length(aws_vpc_security_group_ingress_rule.target_ssh) == 2
    error_message = "Expected five ports at Graphite and one at the targets, from two networks each."
  }

  assert {
    condition     = alltrue([for size in values(local.user_data_bytes) : size <= 12288])
    error_message = "The user data comes near EC2's limit of 16384 bytes."
  }
}

run "scale_and_releases" {
  command = plan

  variables {
    target_count  = 5
    target_ubuntu = ["24.04", "18.04"]
  }

  assert {
    condition     = [for target in aws_instance.target : target.tags.Ubuntu] == ["24.04", "18.04", "24.04", "18.04", "24.04"]
    error_message = "Expected the releases in turn."
  }

  assert {
    condition     = keys(data.aws_ami.ubuntu) == ["18.04", "24.04"]
    error_message = "Expected one look-up a release."
  }
}

run "given_images_are_not_looked_up" {
  command = plan

  variables {
    target_ubuntu = ["22.04"]
    ami_ids       = { "22.04" = "ami-0aaaaaaaaaaaaaaaa", "24.04" = "ami-0bbbbbbbbbbbbbbbb" }
  }

  assert {
    condition     = length(data.aws_ami.ubuntu) == 0
    error_message = "Expected no look-up."
  }

  assert {
    condition     = aws_instance.target[0].ami == "ami-0aaaaaaaaaaaaaaaa" && aws_instance.graphite.ami == "ami-0bbbbbbbbbbbbbbbb"
    error_message = "Expected the images that were given."
  }
}

run "an_address_that_is_the_vpc_is_no_rule_twice" {
  command = plan

  variables {
    operator_cidrs = ["10.42.0.0/16", "203.0.113.7/32", "203.0.113.7/32"]
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.target_ssh) == 2
    error_message = "Expected one rule a network."
  }
}

run "no_workload" {
  command = plan

  variables {
    target_workload = false
  }

  assert {
    condition     = yamldecode(local.target_user_data) == { runcmd = [], write_files = [] }
    error_message = "Expected targets that run nothing of ours."
  }
}

run "outputs" {
  command = apply

  assert {
    condition = output.inventory[0] == {
      name    = "fleetmem-target-1"
      address = "203.0.113.10"
      port    = 22
      user    = "ubuntu"
      groups  = ["target"]
      labels = {
        ec2_instance_id = aws_instance.target[0].id
        ec2_region      = "eu-central-1"
        ec2_zone        = "eu-central-1a"
        Role            = "target"
        Ubuntu          = "24.04"
      }
    }
    error_message = "Not the inventory that fleetmem reads."
  }

  assert {
    condition     = output.graphite_url == "https://203.0.113.99" && output.statsd_endpoint == "203.0.113.99:8125"
    error_message = "Expected the elastic address, which stays."
  }

  assert {
    condition     = strcontains(output.ssh_config, "Host fleetmem-graphite\n    HostName 203.0.113.99\n    User ubuntu\n")
    error_message = "Expected the Graphite host in ssh_config."
  }
}

run "no_zone_with_these_types" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type_offerings.by_type
    values = { locations = [] }
  }

  expect_failures = [aws_vpc.this]
}

run "refuses_the_world" {
  command = plan

  variables {
    operator_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.operator_cidrs]
}

run "refuses_nobody_no_target_and_a_private_key" {
  command = plan

  variables {
    operator_cidrs = []
    target_count   = 0
    ssh_public_key = "-----BEGIN OPENSSH PRIVATE KEY-----"
  }

  expect_failures = [var.operator_cidrs, var.target_count, var.ssh_public_key]
}

run "refuses_a_host_address_for_a_network_half_a_target_and_two_keys" {
  command = plan

  variables {
    operator_cidrs    = ["203.0.113.7/24"]
    target_count      = 2.5
    graphite_disk_gib = 8
    ssh_public_key    = "ssh-ed25519 AAAAC3Nz a\nssh-ed25519 AAAAC3Nz b"
  }

  expect_failures = [var.operator_cidrs, var.target_count, var.graphite_disk_gib, var.ssh_public_key]
}

run "refuses_an_address_without_length_and_instance_types" {
  command = plan

  variables {
    operator_cidrs         = ["203.0.113.7"]
    target_instance_type   = "t4g.micro"
    graphite_instance_type = "t3.micro"
  }

  expect_failures = [var.operator_cidrs, var.target_instance_type, var.graphite_instance_type]
}

run "refuses_images_names_and_places" {
  command = plan

  variables {
    ami_ids       = { "24.04" = "noble" }
    target_ubuntu = ["16.04"]
    name          = "Fleet_Mem"
    region        = "Frankfurt"
    vpc_cidr      = "10.42.0.1/16"
    tags          = { Role = "other" }
  }

  expect_failures = [var.ami_ids, var.target_ubuntu, var.name, var.region, var.vpc_cidr, var.tags]
}
