"""Result folders on any fsspec location: whole files, row stores, leases, logs."""
