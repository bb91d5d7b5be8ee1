"""Link-local addresses: `[fe80::1%eth0]` is an address on one interface."""

import subprocess
from pathlib import Path

from . import servers
from .networks import line_of_machines
from .servers import Cli, find_tool, make_key

ADDRESS = "fe80::5:77"


def test_a_host_at_a_link_local_address(tmp_path: Path, cli: Cli) -> None:
    """It is sampled, with the interface by name and by number; an interface that is not there is told."""
    key = make_key(tmp_path / "key")
    with line_of_machines(2, 1) as (near, far):
        for machine, device, address in ((near, "near", f"{ADDRESS}8"), (far, "far", ADDRESS)):
            words = ("-n", machine.name, "address", "add", f"{address}/64", "dev", device, "nodad")
            subprocess.run([find_tool("ip"), *words], check=True)
        show_near = ("-n", near.name, "-o", "link", "show", "near")
        show = subprocess.run([find_tool("ip"), *show_near], capture_output=True, text=True, check=True)
        number = show.stdout.partition(":")[0]
        public = key.with_suffix(".pub").read_text()
        options = f"ListenAddress {ADDRESS}%far"
        with servers.sshd(tmp_path / "sshd", public_keys=[public], options=options, wrapper=far.wrapper) as sshd:
            ours = Cli(cli.home, wrapper=near.wrapper)
            for zone in ("near", number):
                host = f"{servers.USER}@[{ADDRESS}%{zone}]"
                result = ours("collect", "-i", host, "-p", sshd.port, "-k", key, "--format", "jsonl")
                assert result.status == 0, result.stderr
            host = f"[{ADDRESS}%nowhere]"
            result = ours("collect", "-i", host, "-p", sshd.port, "-k", key, "--format", "jsonl")
            assert result.status == 3
            assert "nowhere" in result.stdout
