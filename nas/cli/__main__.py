"""`python -m nas.cli`: the command line, with the working directory on the path."""

from nas.cli import main

if __name__ == "__main__":
    main()
