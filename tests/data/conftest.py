from data_fixtures import add_dataset, data_cache, datasets_cache, unplug, write_table

__all__ = ["add_dataset", "data_cache", "datasets_cache", "unplug", "write_table"]
