"""What every room needs and none owns: errors, files, words, signals, plug-ins. Imports nothing of nas."""
