"""The groups of a configuration. One field for each key holds its type, default, meaning and allowed values."""
