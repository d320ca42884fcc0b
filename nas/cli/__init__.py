"""The command line: one thin file a verb."""


def main() -> None:
    """Run `nas` with the arguments of this process."""
    from nas.cli.app import main as run  # each verb's options are read there

    run()
