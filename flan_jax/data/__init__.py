"""From a record to a packed batch: tasks, templates, mixtures, features."""
