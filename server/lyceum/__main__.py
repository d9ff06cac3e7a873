"""`python -m lyceum` is the `lyceum` command."""

from lyceum.cli import main

if __name__ == "__main__":
    main()
