"""Export of trained handmesh networks to the formats that devices run."""
