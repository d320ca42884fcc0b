#!/bin/sh
# Starts a search, or goes on with it where its run directory is there already: for schedulers that start jobs again.
#
#   cluster/search.sh DIR [SPACE and flags of `nas search`, for the first start]
set -eu

directory=$1
shift
if [ -e "$directory/run.yaml" ]; then
  exec nas search --resume "$directory" --address auto
fi
exec nas search "$@" --out "$directory" --address auto
