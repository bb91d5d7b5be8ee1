# Canonical's images by owner and name. Not by an SSM parameter: the tests' server has none of Canonical's.
locals {
  codenames        = { "18.04" = "bionic", "20.04" = "focal", "22.04" = "jammy", "24.04" = "noble" }
  graphite_release = "24.04"
  releases         = toset(concat(var.target_ubuntu, [local.graphite_release]))
  ami_ids          = merge({ for release, ami in data.aws_ami.ubuntu : release => ami.id }, var.ami_ids)
}

data "aws_ami" "ubuntu" {
  for_each           = setsubtract(local.releases, keys(var.ami_ids))
  owners             = ["099720109477"] # Canonical: anybody may publish an image of this name
  most_recent        = true
  include_deprecated = true # those of 18.04 and 20.04 are

  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd*/ubuntu-${local.codenames[each.key]}-${each.key}-amd64-server-*"]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }

  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }

  filter {
    name   = "root-device-type"
    values = ["ebs"]
  }

  filter {
    name   = "state"
    values = ["available"]
  }
}
