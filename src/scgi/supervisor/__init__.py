"""The processes above the workers: how many there are, how they begin, end and are replaced."""
