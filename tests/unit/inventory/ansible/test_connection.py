from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory.ansible.arguments import jump_of, parse_arguments
from fleetmem.inventory.ansible.connection import Defaults, Leavings, host_of
from fleetmem.inventory.ansible.templates import VAULT, OnlyAnsibleError
from fleetmem.inventory.listing import LoginPart
from fleetmem.model import Host

_DEFAULTS = Defaults(
    values={
        "remote_user": "cfg",
        "remote_port": "2200",
        "private_key_file": "~/cfg",
        "ssh_args": "-C -o ControlPersist=60s",
        "ssh_common_args": "-J j",
    },
    variables={"inventory_dir": "/etc/inventory"},
    environment={"HOME": "/home/u"},
)


def _host(defaults: Defaults = Defaults(), **variables: Any) -> Host | None:  # noqa: B008 - nothing changes it
    reached = host_of("web01.example.com", variables, ["web"], ["env"], "x", Leavings(), defaults)
    return reached.host if reached else None


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
        ({"ansible_user": None, "ansible_port": None}, _known()),
        ({"ansible_ssh_common_args": "-o User=u -p 23"}, _known(user="u", port=23)),
        ({"ansible_ssh_args": "-l first", "ansible_user": "second"}, _known(user="first")),
        ({"ansible_ssh_common_args": "-l second", "ansible_user": "first"}, _known(user="first")),
        ({"ansible_ssh_private_key_file": "a", "ansible_ssh_extra_args": "-i b -i a"}, _known(key_paths=("a", "b"))),
        (
            {"ansible_ssh_common_args": '-o ProxyCommand="ssh -i b.pem -o IdentityFile=c.pem -q -W %h:%p u@b"'},
            _known(jump="u@b", jump_key_paths=("b.pem", "c.pem")),
        ),
        ({"ansible_ssh_common_args": '-o ProxyCommand="ssh -J a -W %h:%p b"'}, _known(jump="a,b")),
        ({"ansible_ssh_common_args": "-o ProxyCommand=none"}, _known(jump="none")),
        (
            {"ansible_host": "{{ group_names[0] }}.{{ d.tail['x'] }}", "d": {"tail": {"x": "y"}}},
            _known(address="web.y"),
        ),
        ({"ansible_host": "[2001:db8::2]"}, _known(address="2001:db8::2")),
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


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, _known(user="cfg", port=2200, key_paths=("~/cfg",), jump="j")),
        (
            {
                "ansible_user": "u",
                "ansible_port": 22,
                "ansible_ssh_private_key_file": "k",
                "ansible_ssh_common_args": "",
            },
            _known(user="u", port=22, key_paths=("k",)),
        ),
        (
            {
                "ansible_private_key_file": "{{ inventory_dir }}/k",
                "ansible_ssh_common_args": "-i {{ lookup('env', 'HOME') }}/l",
            },
            _known(user="cfg", port=2200, key_paths=("/etc/inventory/k", "/home/u/l")),
        ),
    ],
)
def test_what_ansible_cfg_says(variables: dict[str, Any], host: Host) -> None:
    """A variable of the inventory is stronger than ansible.cfg, setting by setting."""
    assert _host(_DEFAULTS, **variables) == host


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


@pytest.mark.parametrize(
    "template",
    [
        "{{ lookup('file', 'X') }}",
        "{{ nothing }}",
        "{{ a }}",
        "{{ ['x'] | first }}",
        "{% if true %}x{% endif %}",
        "x{# a comment #}",
        "{{ listed[7] }}",
        "{{ text.member }}",
        "{{ unclosed",
        "{{ inventory_file }}",
    ],
)
def test_what_only_ansible_evaluates(template: str) -> None:
    """Nothing is taken for the text that it is not."""
    variables: dict[str, Any] = {"ansible_host": template, "a": "{{ a }}", "listed": ["x"], "text": "x"}
    with pytest.raises(OnlyAnsibleError, match="ansible_host is a template that only Ansible can evaluate"):
        _host(**variables)


def test_a_label_that_only_ansible_evaluates() -> None:
    """Without Ansible the label is left out and told, with it the host waits; no label is the template's own text."""
    leavings = Leavings()
    variables = {"env": "{{ x | first }}", "role": "{{ group_names[0] }}"}
    reached = host_of("a", variables, ["web"], ["env", "role"], "x", leavings)
    assert reached
    assert reached.host.labels == {"role": "web"}
    assert list(leavings.remarks()) == [
        "a label left out, env is a template that only Ansible can evaluate: a",
    ]
    with pytest.raises(OnlyAnsibleError):
        host_of("a", variables, ["web"], ["env"], "x", leavings, Defaults(has_ansible=True))


def test_passwords_are_told() -> None:
    """A password, and whatever else is not taken over, is reported once with what helps."""
    leavings = Leavings()
    for name in ("a", "b"):
        host_of(
            name, {"ansible_ssh_pass": "x", "ansible_ssh_timeout": 3, "ansible_password": ""}, [], [], "x", leavings
        )
    assert list(leavings.remarks()) == [
        "ansible_ssh_pass is not taken over: passwords are not used, give hosts a key",
        "ansible_ssh_timeout is not taken over: set ssh.connect_timeout_seconds",
    ]


def test_another_ssh_configuration_comes_along() -> None:
    """The file of `-F` is that of the host."""
    reached = host_of("a", {"ansible_ssh_args": "-F cfg"}, [], [], "x", Leavings())
    assert reached
    assert reached.config == "cfg"


def test_other_arguments_of_ssh_are_told() -> None:
    """Once, by their names."""
    leavings = Leavings()
    arguments = "-o StrictHostKeyChecking=no -C -o ControlMaster=auto -o ControlPersist=60s -4 -J j"
    for name in ("a", "b"):
        host_of(name, {"ansible_ssh_common_args": arguments}, [], [], "x", leavings)
    assert list(leavings.remarks()) == [
        "options of ssh that are not taken over: stricthostkeychecking, -4",
    ]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_port": "ssh"}, "'ssh' is not a port"),
        ({"ansible_user": "a b"}, "is not a login name"),
        ({"ansible_host": "a b"}, "is neither a host name"),
        ({"ansible_ssh_common_args": "-J 'x"}, "No closing quotation"),
        ({"ansible_ssh_common_args": "-J x;y"}, "jump host 'x;y'"),
        ({"ansible_ssh_common_args": "-o ProxyCommand='nc %h %p'"}, "its ProxyCommand is no `ssh -W`"),
        ({"ansible_ssh_common_args": "-o ProxyCommand='ssh -F x -W %h:%p b'"}, "an option -F, which is not taken over"),
        ({"ansible_ssh_common_args": "-o HostName=elsewhere"}, "hostname among its arguments of ssh leads elsewhere"),
        ({"ansible_ssh_common_args": "elsewhere"}, "'elsewhere' is not an option"),
        ({"ansible_ssh_common_args": "-o ProxyJump"}, "nothing after proxyjump"),
        ({"ansible_host": ""}, "no address: ansible_host is empty"),
        ({"ansible_host": None}, "no address: ansible_host is empty"),
        ({"ansible_host": {VAULT: ""}}, "ansible_host is encrypted"),
        ({"ansible_user": {VAULT: ""}}, "ansible_user is encrypted"),
        ({"ansible_port": ""}, "ansible_port is empty"),
        ({"ansible_port": 0}, "'0' is not a port"),
        ({"ansible_port": "70000"}, "'70000' is not a port"),
        ({"ansible_host": ["10.0.0.1"]}, "ansible_host: expected a text"),
    ],
)
def test_a_variable_that_is_wrong(variables: dict[str, Any], message: str) -> None:
    """With the host that it is about."""
    with pytest.raises(InventoryError) as caught:
        _host(**variables)
    assert message in str(caught.value)
    assert str(caught.value).startswith("x ('web01.example.com'): ")


@pytest.mark.parametrize(
    "command", ["", "exec", "nc %h %p", "ssh bastion", "ssh -W %h:%p", "ssh 'x", "ssh bastion nc %h %p"]
)
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


@pytest.mark.parametrize(
    ("ignored", "variables", "host"),
    [
        ({LoginPart.USER}, {"ansible_user": "ops", "ansible_ssh_args": "-l ops -p 23"}, _known(port=23)),
        ({LoginPart.USER}, {"ansible_user": {VAULT: ""}}, _known()),
        ({LoginPart.USER}, {"ansible_user": "{{ lookup('pipe', 'x') }}", "ansible_port": 23}, _known(port=23)),
        ({LoginPart.KEY}, {"ansible_private_key_file": "~nobody-here/k", "ansible_ssh_extra_args": "-i x"}, _known()),
        ({LoginPart.KEY}, {"ansible_private_key_file": "k", "ansible_user": "ops"}, _known(user="ops")),
        ({LoginPart.JUMP}, {"ansible_ssh_common_args": "-o ProxyCommand='nc %h %p' -l ops"}, _known(user="ops")),
        ({LoginPart.JUMP}, {"ansible_ssh_common_args": "-J bastion"}, _known()),
    ],
)
def test_what_is_ignored_is_not_looked_at(ignored: set[LoginPart], variables: dict[str, Any], host: Host) -> None:
    """Also where it would leave the host out: encrypted, for Ansible alone, a key of somebody without a home."""
    assert _host(Defaults(ignored=frozenset(ignored)), **variables) == host


def test_ignored_settings_of_ansible() -> None:
    """ansible.cfg is a part of the inventory."""
    assert _host(_DEFAULTS._replace(ignored=frozenset(LoginPart))) == _known(port=2200)
