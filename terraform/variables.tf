variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region: expected one as AWS writes it, eu-central-1 or us-east-1 say."
  }
}

variable "name" {
  description = "First part of the names of everything that is made, and its tag Project: two deployments need two."
  type        = string
  default     = "fleetmem"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "name: 2 to 20 lower-case letters, digits and hyphens, a letter first, no hyphen at the end."
  }
}

variable "tags" {
  description = "Tags for everything that is made, beside Name, Project, Role and ManagedBy."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.tags), ["Name", "Project", "Role", "ManagedBy"])) == 0
    error_message = "tags: Name, Project, Role and ManagedBy are set here; discovery depends on them."
  }
}

variable "operator_cidrs" {
  description = "Networks that may reach the hosts (SSH, StatsD, Graphite, Grafana): your own address as a /32."
  type        = list(string)

  validation {
    condition     = length(var.operator_cidrs) > 0
    error_message = "operator_cidrs: give at least your own address, [\"203.0.113.7/32\"] say; nobody could log in otherwise."
  }

  validation {
    # cidrnetmask takes IPv4 only; cidrhost tells 203.0.113.7/24 from the network that it means.
    condition = alltrue([
      for cidr in var.operator_cidrs :
      can(cidrnetmask(cidr)) && try(cidrhost(cidr, 0) == split("/", cidr)[0], false)
    ])
    error_message = "operator_cidrs: each must be an IPv4 network with its first address, 203.0.113.7/32 or 198.51.100.0/24 say."
  }

  validation {
    condition     = alltrue([for cidr in var.operator_cidrs : try(tonumber(split("/", cidr)[1]) >= 16, true)])
    error_message = "operator_cidrs: nothing wider than a /16: StatsD and Graphite take data from everybody who reaches them."
  }
}

variable "ssh_public_key" {
  description = "The public key that all hosts let in, as one line: the text of .deploy/key.pub, which `make key` makes."
  type        = string

  validation {
    condition     = !strcontains(var.ssh_public_key, "PRIVATE KEY")
    error_message = "ssh_public_key: that is a private key; give the text of the file that ends in .pub."
  }

  validation {
    condition     = strcontains(var.ssh_public_key, "PRIVATE KEY") || can(regex("^(ssh-ed25519|ssh-rsa) AAAA[A-Za-z0-9+/]+=* ?[^\n]*\n?$", var.ssh_public_key))
    error_message = "ssh_public_key: expected one line, `ssh-ed25519 AAAA...` or `ssh-rsa AAAA...`; EC2 takes no other kind."
  }
}

variable "vpc_cidr" {
  description = "Network of the VPC; subnets are sixteenths of it."
  type        = string
  default     = "10.42.0.0/16"

  validation {
    condition = (
      can(cidrnetmask(var.vpc_cidr))
      && try(cidrhost(var.vpc_cidr, 0) == split("/", var.vpc_cidr)[0], false)
      && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 23, false)
    )
    error_message = "vpc_cidr: expected an IPv4 network from /16 to /23 with its first address, 10.42.0.0/16 say."
  }
}

variable "target_count" {
  description = "How many hosts there are to collect from."
  type        = number
  default     = 3

  validation {
    condition     = floor(var.target_count) == var.target_count && var.target_count >= 1 && var.target_count <= 50
    error_message = "target_count: a whole number from 1 to 50; beyond that, ask AWS for a higher vCPU quota and raise the limit here."
  }
}

variable "target_instance_type" {
  description = "Instance type of the targets; x86, because the images are."
  type        = string
  default     = "t3.micro"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[0-9][a-z]*\\.[a-z0-9-]+$", var.target_instance_type)) && !can(regex("^[a-z]+[0-9]+g", var.target_instance_type))
    error_message = "target_instance_type: expected an x86 type as AWS writes it, t3.micro say; those of Graviton (t4g, m7g) have no x86."
  }
}

variable "target_ubuntu" {
  description = "Ubuntu LTS releases of the targets, which take them in turn: [\"24.04\", \"18.04\"] makes every second one old."
  type        = list(string)
  default     = ["24.04"]

  validation {
    condition     = length(var.target_ubuntu) > 0 && alltrue([for release in var.target_ubuntu : contains(["18.04", "20.04", "22.04", "24.04"], release)])
    error_message = "target_ubuntu: one or more of 18.04, 20.04, 22.04, 24.04."
  }
}

variable "target_workload" {
  description = "Whether the targets run processes worth watching: one steady, one that leaks, one that forks in bursts."
  type        = bool
  default     = true
}

variable "graphite_instance_type" {
  description = "Instance type of the Graphite host; x86. t3.small (2 GiB) is the least; from some ten targets on, t3.medium."
  type        = string
  default     = "t3.small"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[0-9][a-z]*\\.[a-z0-9-]+$", var.graphite_instance_type)) && !can(regex("^[a-z]+[0-9]+g", var.graphite_instance_type))
    error_message = "graphite_instance_type: expected an x86 type as AWS writes it, t3.small say; those of Graviton (t4g, m7g) have no x86."
  }

  validation {
    condition     = !can(regex("\\.(nano|micro)$", var.graphite_instance_type))
    error_message = "graphite_instance_type: Graphite, StatsD, Grafana and their proxy need 2 GiB: t3.small or larger."
  }
}

variable "graphite_disk_gib" {
  description = "Disk of the Graphite host in GiB. A pid's three series take 0.23 MB until a day after it is gone, a command's four 3.1 MB for good."
  type        = number
  default     = 30

  validation {
    condition     = floor(var.graphite_disk_gib) == var.graphite_disk_gib && var.graphite_disk_gib >= 20 && var.graphite_disk_gib <= 1000
    error_message = "graphite_disk_gib: a whole number from 20 to 1000."
  }
}

variable "ami_ids" {
  description = "Images by Ubuntu release, in place of Canonical's newest: { \"24.04\" = \"ami-0123456789abcdef0\" }. The Graphite host is a 24.04."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for release in keys(var.ami_ids) : contains(["18.04", "20.04", "22.04", "24.04"], release)])
    error_message = "ami_ids: the keys are Ubuntu releases: 18.04, 20.04, 22.04, 24.04."
  }

  validation {
    condition     = alltrue([for id in values(var.ami_ids) : can(regex("^ami-[0-9a-f]{8}([0-9a-f]{9})?$", id))])
    error_message = "ami_ids: the values look like ami-0123456789abcdef0."
  }
}
