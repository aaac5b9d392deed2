"""The command `scgi`: one file per subcommand; the only place that exits the process."""
