"""Training pictures of hands: a rasteriser, skins, light, backgrounds.

::

    mesh = RenderMesh(faces, uv, parts)
    skins = SkinSet.procedural(seed=0, count=12, mesh=mesh)
    environments = EnvironmentSet.procedural(seed=0)
    renderer = Renderer(mesh, skins, environments, size=128)
    look = sample_appearance(rng, len(vertices), skins, environments)
    pictures = renderer.render(vertices, camera, look).image
"""

from handmesh_training.rendering.appearance import Appearance, sample_appearance
from handmesh_training.rendering.environments import BackgroundSet, EnvironmentSet
from handmesh_training.rendering.hands import Hands
from handmesh_training.rendering.mesh import RenderMesh
from handmesh_training.rendering.renderer import NO_PART, Rendered, Renderer
from handmesh_training.rendering.skins import SkinSet

__all__ = [
    "Renderer",
    "Rendered",
    "NO_PART",
    "RenderMesh",
    "SkinSet",
    "EnvironmentSet",
    "BackgroundSet",
    "Appearance",
    "Hands",
    "sample_appearance",
]
