"""`python -m smelt`, also under `torchrun -m smelt`."""

from smelt.cli.main import main

if __name__ == "__main__":
    main()
