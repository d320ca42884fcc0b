"""The family of mobile networks: inverted residuals with kernel size, dilation, expansion and separability of each layer."""
