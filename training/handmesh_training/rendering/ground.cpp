// The table, paper, wall or cloth behind the hand, with the shadow that falls on it.

#include "solids.cpp"

namespace {

// Percentage-closer soft shadows (Fernando 2005): the farther off what blocks, the softer.
HM_DEVICE float soft_visibility(const Scene& s, Vec3 q, float spread) {
  const int size = s.batch->shadow_size;
  const float reach = clampf(0.06f * spread * s.light_scale, 1.0f, 0.2f * size);
  if (q.x < -reach || q.y < -reach || q.x > size + reach || q.y > size + reach) return 1.0f;
  float height = 0.0f;
  int blockers = 0;
  for (int i = 0; i < kRing; ++i) {
    float ax, ay;
    ring_at(i, &ax, &ay);
    const int x = (int)floorf(q.x + ax * reach + 0.5f), y = (int)floorf(q.y + ay * reach + 0.5f);
    if (x < 0 || y < 0 || x >= size || y >= size) continue;
    const float d = s.shadow[(int64_t)y * size + x] - q.z;
    if (d <= kShadowBias) continue;
    height += d;
    ++blockers;
  }
  if (blockers == 0) return 1.0f;
  const float wide = clampf(spread * height / blockers * s.light_scale, 0.6f, reach);
  float lit = 0.0f;
  for (int i = 0; i < kRing; ++i) {
    float ax, ay;
    ring_at(i, &ax, &ay);
    lit += key_visibility(s, vec(q.x + ax * wide, q.y + ay * wide, q.z));
  }
  return lit * (1.0f / kRing);
}

// Colour of the ground at a point, and how much of the pixel it covers (soft at its border).
HM_DEVICE Vec3 shade_ground(const Scene& s, int x, int y, float* cover) {
  *cover = 0.0f;
  const Ground g = load_ground(s);
  if (g.on <= 0.0f) return vec(0, 0, 0);
  const float sx = kSuper * x + 0.5f * (kSuper - 1), sy = kSuper * y + 0.5f * (kSuper - 1);
  const Vec3 ray = ray_of(s, sx, sy);
  const float rz = dot(ray, g.normal) / g.offset;
  if (!(rz > 0.02f)) return vec(0, 0, 0);  // fifty metres: beyond is the horizon
  const Vec3 p = scale(ray, 1.0f / rz);
  const Vec3 eye = scale(p, -1.0f / sqrtf(dot(p, p)));
  const float pixel = p.z * kSuper / (float)s.grid.fx;  // metres across the line of sight
  const float stretched = pixel / fmaxf(dot(eye, g.normal), 0.05f);
  const Vec3 from = sub(p, g.centre);
  const float u = dot(from, g.right), v = dot(from, g.down);
  const float inside = fminf(g.half[0] - fabsf(u), g.half[1] - fabsf(v));
  *cover = clampf(0.5f + inside / pixel, 0.0f, 1.0f) * smooth_step(0.02f, 0.1f, rz);
  if (*cover <= 0.0f) return vec(0, 0, 0);

  const int texture = s.batch->ground_texture[s.item];
  Vec3 albedo;
  if (texture >= 0) {
    const int slot = texture * s.backgrounds->levels;
    const int h = s.backgrounds->extent[2 * slot];
    // Mirrored tiles, each as high as 1 / cells metres.
    const float tu = u * g.cells, tv = v * g.cells;
    const float fu = tu - 2.0f * floorf(0.5f * tu), fv = tv - 2.0f * floorf(0.5f * tv);
    float texels = sqrtf(pixel * stretched) * g.cells * h * g.share;
    int level = 0;
    for (; texels > 1.4f && level + 1 < s.backgrounds->levels; texels *= 0.5f) ++level;
    const float part = g.share;
    const Vec3 c = scale(sample_texture(*s.backgrounds, texture, level,
                                        g.corner[0] + part * (fu > 1.0f ? 2.0f - fu : fu),
                                        g.corner[1] + part * (fv > 1.0f ? 2.0f - fv : fv), false),
                         1.0f / 255.0f);
    albedo = mul(mul(c, c), g.first);  // stored as square roots
    albedo = vec(fminf(albedo.x, 0.9f), fminf(albedo.y, 0.9f), fminf(albedo.z, 0.9f));
  } else {
    const Vec3 q = vec(u * g.cells, v * g.cells, 0.5f);
    albedo = blend3(g.first, g.second, pattern(g.pattern, g.seed, q, stretched * g.cells));
    // Nothing real is perfectly even.
    albedo = scale(albedo, 0.94f + 0.12f * noise(vec(u * 23.0f, v * 23.0f, 3.5f), g.seed + 9));
  }
  Surface a;
  a.p = p;
  a.n = g.normal;
  a.albedo = albedo;
  a.open = openness(s, (int)sx, (int)sy, p, g.normal, 2.0f);
  a.sky = scale(irradiance(s.batch->irradiance + 27 * (int64_t)s.item, g.normal), a.open);
  a.gloss = g.gloss;
  a.roughness = 0.5f;
  a.wrap = 0.0f;
  const float lit = soft_visibility(s, into_light(s, p), g.spread);
  // A lamp is nearer to one side: the light falls off over the surface.
  const float fall = clampf(1.0f + g.slope[0] * u + g.slope[1] * v, 0.45f, 1.6f);
  return scale(reflected_lit(s, a, lit), fall);
}

}  // namespace
