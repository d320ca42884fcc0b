"""The live page on runs (`nas browse`): a Dash app on this machine, whose figures are those of nas/report."""
