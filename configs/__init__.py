"""Ready-made configs. Each file has a get_config() and opens with its command, and what to expect of time and score."""
