"""What ssh_config and known_hosts say, as OpenSSH reads them."""
