"""Hand model, renderer, data, losses and training of the handmesh networks."""
