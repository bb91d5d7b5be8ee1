"""`python -m fleetmem` is the same as `fleetmem`."""

from fleetmem.cli import main

if __name__ == "__main__":
    main()
