"""Which settings of ssh_config(5) count here, and which are worth a word when they do not.

A setting that would change whether, how or how safely a host is reached is honoured, or warned about, once for the
whole fleet.
"""

HONOURED = frozenset(
    {
        *(
            "user",
            "port",
            "hostname",
            "hostkeyalias",
            "addressfamily",
            "bindaddress",
            "bindinterface",
            "connecttimeout",
        ),
        *("identityfile", "identitiesonly", "identityagent", "certificatefile"),
        *("proxyjump", "proxycommand"),
        *("userknownhostsfile", "globalknownhostsfile", "stricthostkeychecking", "revokedhostkeys"),
        *("serveraliveinterval", "serveralivecountmax", "compression", "tcpkeepalive", "rekeylimit"),
        *("ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms"),
        *("gssapiauthentication", "gssapikeyexchange", "casignaturealgorithms", "requiredrsasize"),
        *("tag", "ignoreunknown"),
    }
)

NOT_NEEDED = frozenset(
    {
        # Connections are shared and kept here anyway, and tried again with waits of their own.
        *("controlmaster", "controlpath", "controlpersist", "connectionattempts"),
        # For terminals, people and their desktops.
        *("visualhostkey", "fingerprinthash", "loglevel", "logverbose", "syslogfacility", "escapechar", "requesttty"),
        *("enableescapecommandline", "batchmode", "numberofpasswordprompts", "stdinnull", "forkafterauthentication"),
        *("sessiontype", "remotecommand", "localcommand", "permitlocalcommand", "obscurekeystroketiming"),
        *("warnweakcrypto", "xauthlocation", "ipqos", "usekeychain", "versionaddendum"),
        # Forwarding: nothing of it is ever asked for here, so that nothing of this machine is lent to a host.
        *("forwardagent", "forwardx11", "forwardx11timeout", "forwardx11trusted", "localforward", "remoteforward"),
        *("dynamicforward", "exitonforwardfailure", "clearallforwardings", "gatewayports", "permitremoteopen"),
        *("streamlocalbindmask", "streamlocalbindunlink", "tunnel", "tunneldevice", "sendenv", "setenv"),
        *("gssapidelegatecredentials", "channeltimeout"),
        # Keys in the agent are used as they are; which ones are put into it is ssh's business.
        *("addkeystoagent", "securitykeyprovider"),
        # Ways to log in that need a person, or keys of this host. Keys are all that is ever offered.
        *("preferredauthentications", "passwordauthentication", "kbdinteractiveauthentication"),
        *("kbdinteractivedevices", "hostbasedauthentication", "hostbasedacceptedalgorithms", "enablesshkeysign"),
        # Host keys are looked up by name alone, as ssh does by default, and are all checked, also those of localhost.
        *("checkhostip", "nohostauthenticationforlocalhost", "updatehostkeys"),
        # Only with CanonicalizeHostname, which is logged.
        *("canonicaldomains", "canonicalizefallbacklocal", "canonicalizemaxdots", "canonicalizepermittedcnames"),
        # Names are recorded in the open: the inventory has them anyway, and a hashed line costs an HMAC for each host.
        "hashknownhosts",
    }
)

OF_NO_EFFECT = frozenset(
    {
        # Deprecated, or unsupported since long: ssh passes over them.
        *(
            "protocol",
            "cipher",
            "fallbacktorsh",
            "globalknownhostsfile2",
            "userknownhostsfile2",
            "rhostsauthentication",
        ),
        *("useroaming", "usersh", "useprivilegedport", "afstokenpassing", "kerberosauthentication", "smartcarddevice"),
        *("kerberostgtpassing", "rsaauthentication", "rhostsrsaauthentication", "compressionlevel"),
        # Of the versions that distributions patch; they concern GSSAPI, and servers.
        *("gssapitrustdns", "gssapiclientidentity", "gssapiserveridentity", "gssapirenewalforcesrekey"),
        *("gssapikexalgorithms", "debianbanner", "useblacklistedkeys"),
    }
)
"""What ssh knows and does nothing with, or what is about ways to log in that are not used here."""

SEVERAL_WORDS = frozenset(
    {
        *("host", "match", "include", "userknownhostsfile", "globalknownhostsfile", "rekeylimit", "sendenv", "setenv"),
        *("localforward", "remoteforward", "dynamicforward", "canonicaldomains", "canonicalizepermittedcnames"),
        *("permitremoteopen", "ipqos", "addkeystoagent", "channeltimeout", "logverbose"),
    }
)
"""Settings that may have several words; to all others ssh takes one."""

OTHERS: dict[str, str | None] = {
    "canonicalizehostname": "no",
    "knownhostscommand": "none",
    "pkcs11provider": "none",
    "proxyusefdpass": "no",
    "pubkeyauthentication": "yes",
    "refuseconnection": None,
    "verifyhostkeydns": "no",
}
"""What ssh knows besides, and the value that changes nothing."""

KNOWN = HONOURED | NOT_NEEDED | OF_NO_EFFECT | OTHERS.keys() | {"host", "match", "include"}
"""What ssh knows; it refuses anything else."""
