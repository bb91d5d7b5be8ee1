"""Which algorithms there are, as asyncssh's options say it, compared with the lists that it keeps to itself."""

from asyncssh import encryption, kex, mac, public_key

from fleetmem.connect.openssh.algorithms import Algorithms, supported


def test_what_asyncssh_has() -> None:
    """All that it has, what it offers by itself, in its order."""
    found = supported()
    assert found.ciphers == (encryption.get_encryption_algs(), encryption.get_default_encryption_algs())
    assert found.macs == (mac.get_mac_algs(), mac.get_default_mac_algs())
    assert found.key_exchanges == (kex.get_kex_algs(), kex.get_default_kex_algs())
    assert found.public_keys == public_key.get_public_key_algs()
    assert found.certificates == public_key.get_certificate_algs()


def test_what_is_offered_by_itself() -> None:
    """Kinds of host keys: all certificates first, then what asyncssh offers by itself."""
    usual = public_key.get_certificate_algs(), public_key.get_default_public_key_algs()
    offered = [name.encode() for name in Algorithms().host_keys]
    assert [set(offered[: len(usual[0])]), set(offered[len(usual[0]) :])] == [set(names) for names in usual]
