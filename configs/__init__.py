"""Ready-made configs. Each file has a get_config() and opens with its command, its time and its score."""
