"""How addresses are written. Pure."""


def host_port(host: str, port: int) -> str:
    """Returns both as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
