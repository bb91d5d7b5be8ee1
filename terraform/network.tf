# A VPC with two public subnets, each in a zone that has the instance types asked for. The hosts need addresses that the
# operator reaches; the security groups are what keeps everybody else out.
data "aws_availability_zones" "open" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_ec2_instance_type_offerings" "by_type" {
  for_each      = toset([var.target_instance_type, var.graphite_instance_type])
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [each.key]
  }
}

locals {
  zones = slice(local.usable_zones, 0, min(2, length(local.usable_zones)))
  usable_zones = sort(setintersection(
    data.aws_availability_zones.open.names,
    [for offerings in data.aws_ec2_instance_type_offerings.by_type : offerings.locations]...
  ))
}

resource "aws_vpc" "this" {
  cidr_block = var.vpc_cidr
  tags       = { Name = var.name }

  lifecycle {
    precondition {
      condition     = length(local.usable_zones) > 0
      error_message = "No availability zone of ${var.region} has both ${var.target_instance_type} and ${var.graphite_instance_type}."
    }
  }
}

# The group that AWS puts a network interface into when nobody says another: nothing gets in or out.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-closed" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_subnet" "public" {
  count                   = length(local.zones)
  vpc_id                  = aws_vpc.this.id
  availability_zone       = local.zones[count.index]
  cidr_block              = cidrsubnet(var.vpc_cidr, 4, count.index)
  map_public_ip_on_launch = true # the instances do not ask for an address themselves: moto would lose their groups
  tags                    = { Name = "${var.name}-public-${count.index + 1}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  count          = length(aws_subnet.public)
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}
