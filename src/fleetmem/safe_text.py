r"""Text that may be shown: nothing in it steers a terminal or a spreadsheet, and no secret is in it. Pure.

Hosts say what they like in names and messages, and people write passwords where configuration takes an address. Time
grows with the length of a text, not with its square: a host may have chosen it.
"""

import re

_HIDDEN = "***"

_WORD = re.compile(r"[^\s\"'<>]+")
_USER = re.compile(r"[\w.-]+")
_NAME = r"(?:token|passw(?:or)?d|passphrase|secret|api[_-]?key|access[_-]?key|signature|credential)[\w-]{0,40}"
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s&;\"']+)"
# `?token=x`, `PGPASSWORD=x`; `--api-key x`; `"password": "x"`; `Authorization: Bearer x`
_VALUES = (
    re.compile(rf"(?i)({_NAME}\s{{0,3}}=\s{{0,3}}){_VALUE}"),
    re.compile(rf"(?i)((?<!\S)--?[\w-]{{0,40}}?{_NAME}\s+){_VALUE}"),
    re.compile(rf"(?i)([\"'][\w-]{{0,40}}?{_NAME}[\"']\s{{0,3}}:\s{{0,3}}){_VALUE}"),
    re.compile(r"(?i)(authorization\s{0,3}:\s{0,3}(?:[a-z]{1,20}\s+)?)[^\s\"']+"),
)

_PROGRAM = re.compile(r"(?<!\w)(command:\s*[^\s'\"]+)\s.*", re.DOTALL)


def printable(text: str) -> str:
    r"""Returns text that cannot steer a terminal: what is not printable becomes `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    A byte that was no UTF-8 (a surrogate, see PEP 383) becomes `\xNN`, too: that is what the host sent.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(ord(character)) for character in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code &= 0xFF
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def cell(text: str) -> str:
    r"""Returns printable text that no spreadsheet takes for a formula: `=1+1` becomes `\x3d1+1`."""
    if text.startswith(("=", "+", "-", "@")):
        return _escaped(ord(text[0])) + printable(text[1:])
    return printable(text)


def redact(text: str) -> str:
    """Returns text without passwords, tokens and the like, as far as what stands around shows them."""
    if "@" in text:
        text = _WORD.sub(lambda match: _without_user(match[0]) if "@" in match[0] else match[0], text)
    for pattern in _VALUES:
        text = pattern.sub(rf"\g<1>{_HIDDEN}", text)
    return text


def redact_setting(text: str) -> str:
    """Returns the value of a setting without secrets. Anything behind the program of a `command:` may be one."""
    return redact(_PROGRAM.sub(rf"\g<1> {_HIDDEN}", text))


def _without_user(word: str) -> str:
    """Hides what logs in: `https://user:password@host`, and `user:password@host` as a host might be written."""
    scheme, sign, rest = word.partition("://")
    if sign:  # up to the last @: people forget to encode the one in a password
        return f"{scheme}://{_HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest else word
    return ",".join(map(_without_password, word.split(",")))


def _without_password(part: str) -> str:
    user, _colon, rest = part.partition(":")
    return f"{user}:{_HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest and _USER.fullmatch(user) else part
