"""`python -m act2see`: the command line."""

from act2see.cli import main

if __name__ == "__main__":
    main()
