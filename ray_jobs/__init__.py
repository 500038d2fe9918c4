"""Jobs: `python -m ray_jobs.<job> --config FILE [--key value ...]`. They load, call `optirag_core`, and write."""
