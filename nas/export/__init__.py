"""A candidate as a folder to deploy from."""
