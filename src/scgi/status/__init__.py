"""What every worker is doing, in memory that all processes share. Imports `protocol` and `errors` only."""
