"""The Ray Tune adapter: trials on the processes of a machine or a cluster."""
