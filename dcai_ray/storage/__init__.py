"""Files: local paths and object stores, Parquet tables, feature shards."""
