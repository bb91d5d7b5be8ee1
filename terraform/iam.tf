# A fleetmem on the Graphite host may find the targets by their tags (--inventory ec2:...). That is all: this action knows
# no resources, so it is limited by region instead. The targets have no role.
data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "discover" {
  statement {
    sid       = "FindTargets"
    actions   = ["ec2:DescribeInstances"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.region]
    }
  }
}

resource "aws_iam_role" "graphite" {
  name_prefix        = "${var.name}-graphite-"
  description        = "Lets fleetmem on the Graphite host find its targets"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "discover" {
  name   = "discover"
  role   = aws_iam_role.graphite.id
  policy = data.aws_iam_policy_document.discover.json
}

resource "aws_iam_instance_profile" "graphite" {
  name_prefix = "${var.name}-graphite-"
  role        = aws_iam_role.graphite.name
}
