from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.connection import Leavings, host_of, jump_of, parse_arguments
from fleetmem.model import Host


def _host(**variables: Any) -> Host | None:
    return host_of("web01.example.com", variables, ["web"], ["env"], "x", Leavings())


def _known(**more: Any) -> Host:
    return Host("web01.example.com", **{"address": "web01.example.com", **more})


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, _known()),
        ({"ansible_host": "10.0.0.1", "ansible_user": "u"}, _known(address="10.0.0.1", user="u")),
        ({"ansible_ssh_host": "10.0.0.1", "ansible_ssh_user": "u"}, _known(address="10.0.0.1", user="u")),
        ({"ansible_port": 2222}, _known(port=2222)),
        ({"ansible_ssh_port": "23"}, _known(port=23)),
        ({"ansible_ssh_private_key_file": "~/k"}, _known(key_paths=("~/k",))),
        ({"ansible_private_key_file": "~/k"}, _known(key_paths=("~/k",))),
        ({"ansible_connection": "ssh"}, _known()),
        ({"ansible_connection": "ansible.builtin.paramiko_ssh"}, _known()),
        ({"ansible_host": "", "ansible_user": None}, _known()),
        ({"ansible_host": "{{ inventory_hostname_short }}.internal"}, _known(address="web01.internal")),
        ({"ansible_host": "{{ip}}", "ip": "{{ prefix }}.7", "prefix": "10.0.0"}, _known(address="10.0.0.7")),
        ({"ansible_ssh_common_args": "-J j@bastion:2200"}, _known(jump="j@bastion:2200")),
        ({"ansible_ssh_common_args": "-o ProxyJump=a,b"}, _known(jump="a,b")),
        ({"ansible_ssh_extra_args": "-oProxyJump=a"}, _known(jump="a")),
        ({"ansible_ssh_common_args": "-o 'ProxyJump a' -i ~/k"}, _known(jump="a", key_paths=("~/k",))),
        ({"ansible_ssh_common_args": '-o ProxyCommand="ssh -q -W %h:%p u@b"'}, _known(jump="u@b")),
        ({"ansible_ssh_common_args": '-o ProxyCommand="ssh -W [%h]:%p -p 2200 -l u b"'}, _known(jump="u@b:2200")),
    ],
)
def test_how_a_host_is_reached(variables: dict[str, Any], host: Host) -> None:
    """As Ansible would reach it with these variables."""
    assert _host(**variables) == host


def test_groups_and_chosen_variables_come_along() -> None:
    """Other variables stay where they are: one may be a password."""
    host = _host(env="prod", db_password="x")  # noqa: S106 - that it stays out is the point
    assert host
    assert host.groups == {"web"}
    assert host.labels == {"env": "prod"}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"ansible_connection": "local"}, "ansible_connection=local"),
        ({"ansible_connection": "winrm"}, "ansible_connection=winrm"),
        ({"ansible_host": "{{ lookup('env', 'X') }}"}, "ansible_host is a template that only Ansible can evaluate"),
        ({"ansible_host": "{{ nothing }}"}, "ansible_host is a template"),
        ({"ansible_host": "{{ a }}", "a": "{{ a }}"}, "ansible_host is a template"),
        ({"ansible_ssh_common_args": "-o ProxyCommand='nc %h %p'"}, "its ProxyCommand is no `ssh -W`"),
    ],
)
def test_what_is_not_reached_so_is_left_out_and_told(variables: dict[str, Any], reason: str) -> None:
    """Not in silence, and not in a wrong way."""
    leavings = Leavings()
    for name in ("a", "b", "c", "d"):
        assert host_of(name, variables, [], [], "x", leavings) is None
    (remark,) = leavings.remarks()
    assert remark.startswith(f"left out, {reason}")
    assert remark.endswith(": a, b, c and 1 more")


def test_other_arguments_of_ssh_are_told() -> None:
    """Once, by their names."""
    leavings = Leavings()
    arguments = "-o StrictHostKeyChecking=no -C -o ControlMaster=auto -J j"
    for name in ("a", "b"):
        host_of(name, {"ansible_ssh_common_args": arguments}, [], [], "x", leavings)
    assert list(leavings.remarks()) == [
        "options of ssh that are not taken over: stricthostkeychecking, -C, controlmaster"
    ]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_port": "ssh"}, "'ssh' is not a port"),
        ({"ansible_user": "a b"}, "is not a login name"),
        ({"ansible_host": "a b"}, "is neither a host name"),
        ({"ansible_ssh_common_args": "-J 'x"}, "No closing quotation"),
        ({"ansible_ssh_common_args": "-J x;y"}, "jump host 'x;y'"),
    ],
)
def test_a_variable_that_is_wrong(variables: dict[str, Any], message: str) -> None:
    """With the host that it is about."""
    with pytest.raises(InventoryError) as caught:
        _host(**variables)
    assert message in str(caught.value)


@pytest.mark.parametrize("command", ["", "nc %h %p", "ssh bastion", "ssh -W %h:%p", "ssh 'x", "ssh bastion nc %h %p"])
def test_what_is_no_jump(command: str) -> None:
    """Only ssh with -W is."""
    try:
        assert jump_of(command) is None
    except ValueError:
        pytest.fail("an empty command is no bug")


@given(st.text(alphabet="-oJiWp =%h'\"user@bastion:22,", max_size=40))
def test_any_arguments_can_be_read(text: str) -> None:
    """Or are an error of ours."""
    try:
        list(parse_arguments(text))
    except InventoryError:
        return
    jump_of(text)
