import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import InventoryError
from fleetmem.inventory.patterns import select
from fleetmem.model import Host
from fleetmem.runtime.pattern import Pattern


def _host(name: str, *groups: str, **labels: str) -> Host:
    return Host(name, name, groups=frozenset(groups), labels=labels)


FLEET = [
    _host("cobweb", "webservers", "staging", role="web", env="test"),
    _host("webbing", "webservers", "phoenix", role="web", env="prod"),
    _host("weber", "webservers", role="web-admin", env="prod"),
    _host("dbase", "dbservers", "staging", role="db", env="test"),
    _host("web1.example.com", "phoenix"),
    _host("db1.example.com", "dbservers", "phoenix"),
    _host("one.mail.com"),
    _host("192.0.2.7"),
    _host("192.0.2.8:2222"),
    _host("[::1]:22"),
    _host("::1"),
]
"""Web servers as in Ansible's documentation, and whatever has a name that is hard to tell from a pattern."""


def _names(pattern: str) -> list[str]:
    return [host.name for host in select(pattern, FLEET)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        # Ansible's documentation, "Patterns: targeting hosts and groups", one by one
        ("all", [host.name for host in FLEET]),
        ("*", [host.name for host in FLEET]),
        ("cobweb", ["cobweb"]),
        ("cobweb:weber", ["cobweb", "weber"]),
        ("weber,cobweb", ["weber", "cobweb"]),
        ("webservers", ["cobweb", "webbing", "weber"]),
        ("webservers:dbservers", ["cobweb", "webbing", "weber", "dbase", "db1.example.com"]),
        ("webservers:!phoenix", ["cobweb", "weber"]),
        ("webservers:&staging", ["cobweb"]),
        ("webservers:dbservers:&staging:!phoenix", ["cobweb", "dbase"]),
        ("webservers,dbservers,&staging,!phoenix", ["cobweb", "dbase"]),
        ("192.0.2.*", ["192.0.2.7", "192.0.2.8:2222"]),
        ("*.example.com", ["web1.example.com", "db1.example.com"]),
        ("*.com", ["web1.example.com", "db1.example.com", "one.mail.com"]),
        ("one*.com:dbservers", ["one.mail.com", "dbase", "db1.example.com"]),
        ("*.example.com:dbservers", ["web1.example.com", "db1.example.com", "dbase"]),
        (r"~(web|db).*\.example\.com", ["web1.example.com", "db1.example.com"]),
        ("webservers[0]", ["cobweb"]),
        ("webservers[-1]", ["weber"]),
        ("webservers[0:1]", ["cobweb", "webbing"]),
        ("webservers[0:2]", ["cobweb", "webbing", "weber"]),
        ("webservers[1:]", ["webbing", "weber"]),
        ("webservers[:3]", ["cobweb", "webbing", "weber"]),
        # the order of evaluation, as there: & and ! come last, wherever they stand
        ("!phoenix:&staging:webservers", ["cobweb"]),
        ("!phoenix", ["cobweb", "weber", "dbase", "one.mail.com", "192.0.2.7", "192.0.2.8:2222", "[::1]:22", "::1"]),
        ("&staging", ["cobweb", "dbase"]),
        ("webservers:!webservers[0]", ["webbing", "weber"]),
        ("webservers:webservers", ["cobweb", "webbing", "weber"]),
        # and what it does not say
        ("ungrouped", ["one.mail.com", "192.0.2.7", "192.0.2.8:2222", "[::1]:22", "::1"]),
        ("web*", ["cobweb", "webbing", "weber", "web1.example.com"]),
        ("~web", ["cobweb", "webbing", "weber", "web1.example.com"]),
        ("web[b]*", ["webbing"]),
        (" webservers : &staging ", ["cobweb"]),
        ("webservers:nothing*", ["cobweb", "webbing", "weber"]),
        ("webservers:!nothing*", ["cobweb", "webbing", "weber"]),
        ("nothing*", []),
        ("nothing*[0]", []),
        ("webservers:!webservers", []),
        # names with colons
        ("192.0.2.8:2222", ["192.0.2.8:2222"]),
        ("192.0.2.8:2222:webservers[0:1]:!weber", ["192.0.2.8:2222", "cobweb", "webbing"]),
        ("[::1]:22", ["[::1]:22"]),
        ("[::1]:22:weber", ["[::1]:22", "weber"]),
        ("::1", ["::1"]),
        ("::1,weber", ["::1", "weber"]),
        # host ranges as on the command line
        ("db[1-3].example.com", ["db1.example.com"]),
        ("web[0,1].example.com:weber", ["web1.example.com", "weber"]),
        ("web[0-3]*", ["web1.example.com"]),
        # labels
        ("role=web", ["cobweb", "webbing"]),
        ("role=web*:!env=test", ["webbing", "weber"]),
        ("all:&env=prod", ["webbing", "weber"]),
        ("dbservers:role=web-admin", ["dbase", "db1.example.com", "weber"]),
        ("env=prod[0]", ["webbing"]),
        ("env=none", []),
        ("noth*=prod", []),
        ("r?le=db", ["dbase"]),
    ],
)
def test_select(pattern: str, names: list[str]) -> None:
    """Ansible's documented examples mean what they mean there; labels and host ranges are terms like others."""
    assert _names(pattern) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "a term is empty"),
        (" : ", "a term is empty"),
        ("web:&", "a term is empty"),
        ("!", "a term is empty"),
        ("~", "a term is empty"),
        ("webserver", "no host or group 'webserver'; do you mean webservers"),
        ("all:!phenix", "no host or group 'phenix'; do you mean phoenix"),
        ("all:&zzz", "no host or group 'zzz'"),
        ("webservers:&staging,weber", "where there is a comma in a pattern, colons do not separate"),
        ("rol=web", "no host has a label 'rol'; do you mean role"),
        ("webservers[3]", "there are only 3 hosts in 'webservers'"),
        ("webservers[-4]", "there are only 3 hosts"),
        ("~(web", "not a regular expression"),
        ("web[3-1]", "runs backwards"),
        ("web[1", "brackets do not match"),
        ("web1]", "brackets do not match"),
    ],
)
def test_select_refuses(pattern: str, message: str) -> None:
    """What cannot be read, and names that there are not, are errors that say what may have been meant."""
    with pytest.raises(InventoryError, match=re.escape(message)):
        select(pattern, FLEET)


@given(st.text(alphabet="web1:,&!*?[]~=-0(){}|", max_size=20))
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    """Whatever is typed gives hosts of the fleet, each once, or an error of ours."""
    try:
        chosen = select(text, FLEET, Pattern)
    except InventoryError:
        return
    assert len({host.name for host in chosen}) == len(chosen)
    assert all(host in FLEET for host in chosen)


def test_select_hands_back_the_hosts_themselves() -> None:
    """Groups and labels come along."""
    assert select("cobweb", FLEET)[0] is FLEET[0]
