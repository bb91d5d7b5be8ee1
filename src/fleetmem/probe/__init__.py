"""Stage 3: what runs on a host (`probe.sh`), how it gets there (`script`), its frames (`frame`), their sense (`parse`).

Pure: no event loop, no socket, no clock.
"""
