terraform {
  required_version = ">= 1.7, < 2.0" # mock_provider, which the tests use, came with 1.7

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The state is in terraform.tfstate beside this file. It holds no secret, but who loses it has to find and delete
  # everything by hand. For more than one person, a bucket with a lock:
  #
  # backend "s3" {
  #   bucket       = "example-terraform-state"
  #   key          = "fleetmem/terraform.tfstate"
  #   region       = "eu-central-1"
  #   encrypt      = true
  #   use_lockfile = true # Terraform 1.10 or later
  # }
}
