"""Where files live: a local folder or an S3 bucket, behind the few operations that a run needs."""
