"""What to try, by kind of failure."""

from fleetmem.errors import Cause, Kind

HINTS = {
    Kind.UNRESOLVABLE: "check the spelling; `getent hosts NAME` shows what this machine's resolver says",
    Kind.UNREACHABLE: "is the host up, is sshd on that port (-p), is there a route? Try `ssh -v HOST`",
    Kind.CONNECT_TIMEOUT: "a firewall that drops packets looks like this; is there a jump host to go through (-J)?",
    Kind.HOST_KEY_UNKNOWN: "check it, then `ssh-keyscan HOST >> ~/.ssh/known_hosts`, or use --host-keys accept-new",
    Kind.HOST_KEY_CHANGED: "rebuilt, or somebody in between? Find out; if all is well, remove the old key as shown",
    Kind.AUTH_FAILED: "wrong user (-u) or key (-k), or not in the host's authorized_keys; `ssh -v HOST` shows more",
    Kind.AGENT_UNAVAILABLE: "this machine's ssh agent: `ssh-add -l` asks it; start it again, or give a key file (-k)",
    Kind.LOGIN_TIMEOUT: "it accepts connections and finishes no login: overloaded, slow DNS or PAM, or no SSH server",
    Kind.COMMAND_TIMEOUT: "is the host slow (`time ssh HOST true`)? --command-timeout gives it longer",
    Kind.COMMAND_MISSING: "the probe needs /bin/sh, awk and, with --sudo, sudo; --probe ps is for hosts without /proc",
    Kind.COMMAND_FAILED: "try `ssh HOST /bin/sh -c true`: the account must be allowed to run commands",
    Kind.SUDO_REFUSED: "`fleetmem probe --sudoers USER` of this version prints what to put into /etc/sudoers.d there",
    Kind.BAD_FRAME: "is the probe there the one of this version (forced command)? -v shows more",
    Kind.DISCONNECTED: "the host or something in between closed the connection: sshd's log there says why",
    Kind.INTERNAL: "a bug in fleetmem, not in the host: please report it with the traceback from the log",
}

_HINTS_OF_CAUSES = {
    Cause.NO_KEY: "give a key (-k), or load one with ssh-add; `ssh-keygen -t ed25519` makes one for the host to know",
    Cause.MORE_METHODS: "fleetmem has keys only: let this account in by key alone (sshd_config, AuthenticationMethods)",
    Cause.NO_KEYS_TAKEN: "allow keys there: PubkeyAuthentication yes, and no AuthenticationMethods without publickey",
    Cause.ALGORITHMS: "put that setting under `Host NAME` into ~/.ssh/config, or update the SSH server there",
    Cause.OTHER_OUTPUT: "`ssh HOST /bin/sh -c true` must print nothing: see the shell's start-up files, ForceCommand",
    Cause.TERMINAL: "run the probe without a terminal: no script(1) or forced pty in ForceCommand or start-up files",
    Cause.KILLED: "the host ended the probe: out of memory, a limit, or a person; its kernel log says more",
}


def hint_for(kind: Kind, cause: Cause | None) -> str:
    """Returns what to try about a failure: by what there is evidence for, else by its kind."""
    return _HINTS_OF_CAUSES.get(cause, HINTS[kind]) if cause else HINTS[kind]
