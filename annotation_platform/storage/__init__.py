"""The lake: objects in a folder or a bucket, and tables in Parquet, one file per round."""
