// Light, skin and the camera's response: what one output pixel looks like. See raster.cpp.

#include "raster.cpp"

namespace {

// ---------------------------------------------------------------- light and texture

// Order-2 real spherical harmonics, the constants of Ramamoorthi and Hanrahan (2001).
HM_DEVICE Vec3 irradiance(const float* c, Vec3 n) {
  const float y[9] = {0.282095f, 0.488603f * n.y, 0.488603f * n.z, 0.488603f * n.x,
                      1.092548f * n.x * n.y, 1.092548f * n.y * n.z,
                      0.315392f * (3.0f * n.z * n.z - 1.0f), 1.092548f * n.x * n.z,
                      0.546274f * (n.x * n.x - n.y * n.y)};
  Vec3 e = vec(0, 0, 0);
  for (int i = 0; i < 9; ++i) e = add(e, scale(load3(c + 3 * i), y[i]));
  return vec(fmaxf(e.x, 0.0f), fmaxf(e.y, 0.0f), fmaxf(e.z, 0.0f));
}

// Bilinear, values 0..255. wrap: around in x; otherwise mirrored at the borders.
HM_DEVICE Vec3 sample_texture(const HmTextures& t, int index, int level, float u, float v,
                              bool wrap) {
  if (level >= t.levels) level = t.levels - 1;
  const int slot = index * t.levels + level;
  const int h = t.extent[2 * slot], w = t.extent[2 * slot + 1];
  const float x = u * w - 0.5f, y = clampf(v * h - 0.5f, 0.0f, (float)(h - 1));
  const float xf = floorf(x);
  int x0 = (int)xf, x1 = x0 + 1;
  const int y0 = (int)y, y1 = y0 + 1 < h ? y0 + 1 : h - 1;
  if (wrap) {
    x0 = x0 < 0 ? x0 + w : (x0 >= w ? x0 - w : x0);
    x1 = x1 < 0 ? x1 + w : (x1 >= w ? x1 - w : x1);
  }
  x0 = clampi(x0, 0, w - 1);
  x1 = clampi(x1, 0, w - 1);
  const float fx = x - xf, fy = y - (float)y0;
  const uint8_t* base = t.texels + t.offset[slot];
  const uint8_t* a = base + 4 * ((int64_t)y0 * w + x0);
  const uint8_t* b = base + 4 * ((int64_t)y0 * w + x1);
  const uint8_t* c = base + 4 * ((int64_t)y1 * w + x0);
  const uint8_t* d = base + 4 * ((int64_t)y1 * w + x1);
  const float wa = (1 - fx) * (1 - fy), wb = fx * (1 - fy), wc = (1 - fx) * fy, wd = fx * fy;
  float sum[4];  // four channels at a time, so that the compiler uses vectors
  for (int i = 0; i < 4; ++i) sum[i] = a[i] * wa + b[i] * wb + c[i] * wc + d[i] * wd;
  return vec(sum[0], sum[1], sum[2]);
}

// atan(x) / (2 pi) for |x| <= 1, to 2e-6: finer than a panorama's texel.
HM_DEVICE float small_turn(float x) {
  const float s = x * x;
  return x * (0.159134f + s * (-0.052569f + s * (0.028670f + s * (-0.013549f + s * 0.003316f))));
}
HM_DEVICE float turn(float y, float x) {  // atan2 / (2 pi)
  const float ax = fabsf(x), ay = fabsf(y);
  const float r = small_turn(fminf(ax, ay) / (fmaxf(ax, ay) + 1e-20f));
  const float q = ay > ax ? 0.25f - r : r;
  const float h = x < 0 ? 0.5f - q : q;
  return y < 0 ? -h : h;
}

// ---------------------------------------------------------------- one sample's scene

// What the stages hand to one another, for one image. Arrays live in the caller's workspace.
struct Scene {
  const HmMesh* mesh;
  const HmTextures* skins;
  const HmTextures* backgrounds;
  const HmBatch* batch;
  int item;
  Camera grid;              // intrinsics of the sample grid
  float ray_step[2], ray_start[2];  // the same, as ray = start + step * sample
  Vec3 light_x, light_y, light_z;
  float light_origin[2], light_scale;
  Vec3* face_normals;       // (F,) not normalised: length is twice the area
  Vec3* normals;            // (V,)
  Vec3* points;             // (V,) camera space, the sleeve put on
  Vec3* ambient;            // (V,) irradiance / pi
  Vec3* in_light;           // (V,) shadow map x, y and depth towards the light
  Planes* planes;           // (F,)
  uint64_t* visible;        // (2 S, 2 S)
  float* shadow;            // (shadow_size, shadow_size)
  float* albedo;            // (3, 256) by texture value
  uint8_t* response;        // (kToneTable,) by sqrt(light / kToneMax)
  Vec3 ends[kClutter][2];   // axes of the clutter's capsules
};

HM_DEVICE Vec3 vertex_of(const Scene& s, int v) {
  return load3(s.batch->vertices + 3 * ((int64_t)s.item * s.mesh->vertex_count + v));
}

HM_DEVICE const float* sleeve_of(const Scene& s) { return s.batch->sleeve + 6 * (int64_t)s.item; }

HM_DEVICE void face_normal(const Scene& s, int face) {
  const int32_t* f = s.mesh->faces + 3 * face;
  const Vec3 a = vertex_of(s, f[0]);
  s.face_normals[face] = cross(sub(vertex_of(s, f[1]), a), sub(vertex_of(s, f[2]), a));
}

HM_DEVICE void shade_vertex(const Scene& s, int v) {
  Vec3 n = vec(0, 0, 0);
  for (int i = s.mesh->fan_start[v]; i < s.mesh->fan_start[v + 1]; ++i) {
    n = add(n, s.face_normals[s.mesh->fan[i]]);
  }
  n = normalised(n);
  s.normals[v] = n;
  s.ambient[v] = irradiance(s.batch->irradiance + 27 * (int64_t)s.item, n);
  const float* sleeve = sleeve_of(s);
  // Cloth stands off the arm, within two centimetres of its hem.
  const float cover = clampf((s.mesh->arm[v] - sleeve[0]) * 50.0f + 0.3f, 0.0f, 1.0f);
  const Vec3 p = add(vertex_of(s, v), scale(n, sleeve[1] * cover));
  s.points[v] = p;
  s.in_light[v] = vec((dot(p, s.light_x) - s.light_origin[0]) * s.light_scale,
                      (dot(p, s.light_y) - s.light_origin[1]) * s.light_scale,
                      dot(p, s.light_z));
}

HM_DEVICE void draw_visible(const Scene& s, int face) {
  const int32_t* f = s.mesh->faces + 3 * face;
  double P[3][3];
  for (int i = 0; i < 3; ++i) {
    const Vec3 p = s.points[f[i]];
    P[i][0] = p.x; P[i][1] = p.y; P[i][2] = p.z;
  }
  const float* uv = s.mesh->uv + 6 * (int64_t)face;
  const int32_t* extent = s.skins->extent + 2 * s.batch->skin[s.item] * s.skins->levels;
  const float texels = 0.5f * fabsf((uv[2] - uv[0]) * (uv[5] - uv[1]) -
                                    (uv[3] - uv[1]) * (uv[4] - uv[0])) * extent[0] * extent[1];
  draw_face(P, s.grid, kSuper * s.batch->size, face, texels, s.planes + face, s.visible);
}

// Only faces turned away from the light cast shadow: a lit surface then never shadows itself.
HM_DEVICE void draw_shadow(const Scene& s, int face) {
  if (dot(s.face_normals[face], s.light_z) >= 0.0f) return;
  const int32_t* f = s.mesh->faces + 3 * face;
  const Vec3 a = s.in_light[f[0]], b = s.in_light[f[1]], c = s.in_light[f[2]];
  const float area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
  if (fabsf(area) < 1e-12f) return;
  const int size = s.batch->shadow_size;
  WriteShadow write;
  write.depth = s.shadow;
  write.width = size;
  write.x0 = (int)a.x;
  write.y0 = (int)a.y;
  write.plane[0] = ((b.z - a.z) * (c.y - a.y) - (c.z - a.z) * (b.y - a.y)) / area;
  write.plane[1] = ((c.z - a.z) * (b.x - a.x) - (b.z - a.z) * (c.x - a.x)) / area;
  write.plane[2] = a.z + write.plane[0] * (write.x0 - a.x) + write.plane[1] * (write.y0 - a.y);
  const int64_t X[3] = {snap(a.x), snap(b.x), snap(c.x)};
  const int64_t Y[3] = {snap(a.y), snap(b.y), snap(c.y)};
  rasterise(X, Y, size, size, write);
}

// Share of the key light that arrives: 2x2 percentage-closer filtering.
HM_DEVICE float key_visibility(const Scene& s, Vec3 q) {
  const int size = s.batch->shadow_size;
  const float xf = floorf(q.x), yf = floorf(q.y), fx = q.x - xf, fy = q.y - yf;
  const float bias = 0.0025f;  // metres
  float lit[4];
  for (int i = 0; i < 4; ++i) {
    const int x = clampi((int)xf + (i & 1), 0, size - 1), y = clampi((int)yf + (i >> 1), 0, size - 1);
    lit[i] = s.shadow[(int64_t)y * size + x] > q.z + bias ? 0.0f : 1.0f;
  }
  return (lit[0] * (1 - fx) + lit[1] * fx) * (1 - fy) + (lit[2] * (1 - fx) + lit[3] * fx) * fy;
}

HM_DEVICE Vec3 ray_of(const Scene& s, float x, float y) {
  return vec(s.ray_start[0] + s.ray_step[0] * x, s.ray_start[1] + s.ray_step[1] * y, 1.0f);
}

// Point on the surface seen through a sample, in camera space; false where nothing is.
HM_DEVICE bool point_at(const Scene& s, int x, int y, Vec3* out) {
  const int width = kSuper * s.batch->size;
  if (x < 0 || y < 0 || x >= width || y >= width) return false;
  const uint64_t key = s.visible[(int64_t)y * width + x];
  if (key == 0) return false;
  *out = scale(ray_of(s, (float)x, (float)y), 1.0f / inverse_z_of(key));
  return true;
}

// Screen-space ambient occlusion (the estimator of McGuire et al. 2011): 1 = open sky.
HM_DEVICE float openness(const Scene& s, int x, int y, Vec3 p, Vec3 n) {
  const float* setting = s.batch->occlusion + 2 * (int64_t)s.item;
  if (setting[0] <= 0.0f) return 1.0f;
  const float ring[12][2] = {{0.35f, 0.1f}, {-0.25f, 0.3f}, {-0.1f, -0.38f}, {0.2f, -0.3f},
                             {0.6f, 0.45f}, {-0.15f, 0.75f}, {-0.75f, 0.05f}, {-0.4f, -0.65f},
                             {0.3f, -0.72f}, {0.78f, -0.2f}, {0.1f, 1.0f}, {-0.95f, -0.3f}};
  const float radius = setting[1], reach = clampf((float)s.grid.fx * radius / p.z, 3.0f, 64.0f);
  float blocked = 0.0f;
  for (int i = 0; i < 12; ++i) {
    Vec3 q;
    if (!point_at(s, x + (int)(ring[i][0] * reach), y + (int)(ring[i][1] * reach), &q)) continue;
    const Vec3 d = sub(q, p);
    // In a steep crease the neighbours lie farther off in depth than on the screen.
    const float d2 = dot(d, d), r2 = 4.0f * radius * radius;
    if (d2 >= r2) continue;
    const float rise = dot(d, n) / sqrtf(d2 + 1e-8f) - 0.12f;
    if (rise > 0.0f) blocked += rise * (1.0f - d2 / r2);
  }
  return clampf(1.0f - setting[0] * 2.2f * blocked / 12.0f, 0.1f, 1.0f);
}

// ---------------------------------------------------------------- pixels

HM_DEVICE Vec3 background_at(const Scene& s, int x, int y) {
  const HmBatch& b = *s.batch;
  const float* m = b.background_map + 9 * (int64_t)s.item;
  const float cu = (x + 0.5f) / b.size, cv = (y + 0.5f) / b.size;
  const Vec3 q = vec(m[0] * cu + m[1] * cv + m[2], m[3] * cu + m[4] * cv + m[5],
                     m[6] * cu + m[7] * cv + m[8]);
  const int index = b.background[s.item];
  const bool panorama = b.is_panorama[index] != 0;
  float u, v;
  if (panorama) {
    u = turn(q.x, q.z) + 0.5f;
    v = 0.5f + 2.0f * turn(q.y, sqrtf(q.x * q.x + q.z * q.z));
  } else {
    u = q.x / q.z;
    v = q.y / q.z;
  }
  // Between two mip levels: defocus without the blocks of a single coarse one.
  const float blur = b.background_blur[s.item];
  const int level = (int)blur;
  const float fine = 1.0f - (blur - level);
  Vec3 c = scale(sample_texture(*s.backgrounds, index, level, u, v, panorama), fine);
  if (fine < 1.0f) {
    c = add(c, scale(sample_texture(*s.backgrounds, index, level + 1, u, v, panorama), 1 - fine));
  }
  c = scale(c, 1.0f / 255.0f);
  return mul(mul(c, c), load3(b.background_gain + 3 * (int64_t)s.item));  // stored as square roots
}

HM_DEVICE float look_up(const float* table, float value) {
  const int i = (int)value;
  const int j = i < 255 ? i + 1 : 255;
  return table[i] + (table[j] - table[i]) * (value - i);
}

// Woven stripes or checks, and the folds' uneven light: a factor around 1.
HM_DEVICE float weave(const Scene& s, Vec3 p) {
  const float strength = sleeve_of(s)[5];
  const float seed = (float)(s.batch->background[s.item] % 7 + 1);
  const float a = sinf((p.x + 0.3f * seed * p.y) * 60.0f * seed);
  const float b = sinf((p.y - 0.2f * seed * p.z) * 45.0f * seed);
  const float fold = sinf(17.0f * p.x + 23.0f * p.y + 29.0f * p.z + seed);
  return 1.0f + strength * (0.5f * a * (1.0f + b)) + 0.12f * fold;
}

struct Surface {
  Vec3 p, n;         // camera space
  Vec3 albedo;
  Vec3 sky;          // irradiance / pi from all around, occlusion included
  Vec3 in_light;     // place in the shadow map
  float open;        // 1 = nothing near
  float gloss, wrap; // 0 for cloth
};

// Cosine law bent around the terminator: 0 at -amount, 1 facing the light, soft at its end.
HM_DEVICE float wrap(float cosine, float amount) {
  const float x = fmaxf(cosine + amount, 0.0f) / (1.0f + amount);
  return x * (1.0f - amount + amount * x);
}

HM_DEVICE Vec3 reflected(const Scene& s, const Surface& a) {
  const float* gloss = s.batch->gloss + 3 * (int64_t)s.item;
  const Vec3 key = load3(s.batch->key_light + 3 * (int64_t)s.item);
  const float cosine = dot(a.n, s.light_z);
  Vec3 light = a.sky;
  float lit = 0.0f;
  const float red = 0.4f * a.wrap, green = 0.2f * a.wrap, blue = 0.12f * a.wrap;
  if (cosine > -red) {
    lit = key_visibility(s, a.in_light) * (0.4f + 0.6f * a.open);
    // Light that entered the skin leaves it beyond the terminator, red farthest.
    const Vec3 wrapped = vec(wrap(cosine, red), wrap(cosine, green), wrap(cosine, blue));
    light = add(light, scale(mul(key, wrapped), lit));
  }
  Vec3 colour = mul(a.albedo, light);
  if (a.gloss <= 0.0f) return colour;
  // Specular: GGX for the key light, the sky's irradiance towards grazing for the rest.
  const Vec3 eye = scale(a.p, -1.0f / sqrtf(dot(a.p, a.p)));
  const float facing = clampf(dot(a.n, eye), 0.0f, 1.0f);
  const float graze = (1 - facing) * (1 - facing);
  const float rim = 0.028f + 0.3f * graze * graze * (1 - facing);
  colour = add(colour, scale(a.sky, a.gloss * rim));
  if (lit > 0.0f && cosine > 0.0f) {
    const Vec3 half = normalised(add(eye, s.light_z));
    const float nh = clampf(dot(a.n, half), 0.0f, 1.0f), lh = clampf(dot(eye, half), 0.0f, 1.0f);
    const float a2 = gloss[1] * gloss[1] * gloss[1] * gloss[1];
    const float d = nh * nh * (a2 - 1.0f) + 1.0f;
    const float miss = 1.0f - lh, miss2 = miss * miss;
    const float fresnel = 0.028f + 0.972f * miss2 * miss2 * miss;
    // The pi of D cancels against that of key_light, which is irradiance / pi.
    const float specular = a2 / (d * d) * fresnel / (4.0f * fmaxf(lh * lh, 0.1f));
    colour = add(colour, scale(key, a.gloss * specular * cosine * lit));
  }
  return colour;
}

HM_DEVICE Vec3 shade_hand(const Scene& s, int face, const float w[3], Vec3 p, Vec3 n, float open,
                          int coarser) {
  const HmBatch& b = *s.batch;
  const int32_t* f = s.mesh->faces + 3 * face;
  const float* sleeve = sleeve_of(s);
  Surface a;
  a.p = p;
  a.n = n;
  a.open = open;
  a.sky = scale(mix3(s.ambient[f[0]], s.ambient[f[1]], s.ambient[f[2]], w[0], w[1], w[2]), open);
  a.in_light = mix3(s.in_light[f[0]], s.in_light[f[1]], s.in_light[f[2]], w[0], w[1], w[2]);
  const float* arm = s.mesh->arm;
  const float hem = arm[f[0]] * w[0] + arm[f[1]] * w[1] + arm[f[2]] * w[2] - sleeve[0];
  if (hem > 0.0f) {
    a.albedo = scale(load3(sleeve + 2), weave(s, p));
    a.gloss = a.wrap = 0.0f;
    return reflected(s, a);
  }
  const float* uv = s.mesh->uv + 6 * (int64_t)face;
  const Vec3 texel = sample_texture(*s.skins, b.skin[s.item], s.planes[face].mip + coarser,
                                    uv[0] * w[0] + uv[2] * w[1] + uv[4] * w[2],
                                    uv[1] * w[0] + uv[3] * w[1] + uv[5] * w[2], false);
  a.albedo = vec(look_up(s.albedo, texel.x), look_up(s.albedo + 256, texel.y),
                 look_up(s.albedo + 512, texel.z));
  a.gloss = b.gloss[3 * (int64_t)s.item];
  a.wrap = b.gloss[3 * (int64_t)s.item + 2];
  const float under = clampf(1.0f + 80.0f * hem, 0.0f, 1.0f);  // the hem's own shadow
  a.sky = scale(a.sky, 1.0f - 0.6f * under * under);
  return reflected(s, a);
}

// ---------------------------------------------------------------- clutter

HM_DEVICE float clutter_radius(const Scene& s, int i) {
  return s.batch->clutter[7 * ((int64_t)s.item * kClutter + i) + 6];
}

// Depth at which the ray (unit z) enters the capsule; 0 when it misses.
HM_DEVICE float capsule_depth(Vec3 a, Vec3 b, float radius, Vec3 ray) {
  const Vec3 axis = sub(b, a);
  const float len2 = dot(axis, axis), along = dot(axis, ray), back = -dot(axis, a);
  const float rr = dot(ray, ray), ra = -dot(ray, a);
  const float qa = len2 * rr - along * along;
  const float qb = len2 * ra - back * along;
  const float qc = len2 * dot(a, a) - back * back - radius * radius * len2;
  const float disc = qb * qb - qa * qc;
  if (qa > 1e-9f) {
    if (disc < 0.0f) return 0.0f;
    const float t = (-qb - sqrtf(disc)) / qa, y = back + t * along;
    if (y > 0.0f && y < len2) return fmaxf(t, 0.0f);
  }
  float best = 0.0f;
  for (int i = 0; i < 2; ++i) {  // the round ends
    const Vec3 c = i ? b : a;
    const float h = dot(ray, c), d = h * h - rr * (dot(c, c) - radius * radius);
    if (d < 0.0f) continue;
    const float t = (h - sqrtf(d)) / rr;
    if (t > 0.0f && (best == 0.0f || t < best)) best = t;
  }
  return best;
}

// Ids after the faces' mark the capsules in the visibility buffer.
HM_DEVICE void draw_clutter(const Scene& s, int i) {
  const float radius = clutter_radius(s, i);
  if (radius <= 0.0f) return;
  const int width = kSuper * s.batch->size;
  float lo[2] = {1e9f, 1e9f}, hi[2] = {-1e9f, -1e9f};
  for (int end = 0; end < 2; ++end) {
    const Vec3 c = s.ends[i][end];
    const float near_z = fmaxf(c.z - radius, 0.05f);  // a box that surely holds the ball
    for (int sign = -1; sign <= 1; sign += 2) {
      for (int far = 0; far < 2; ++far) {
        const float z = far ? c.z + radius : near_z;
        const float x = (float)(s.grid.fx * (c.x + sign * radius) / z + s.grid.cx);
        const float y = (float)(s.grid.fy * (c.y + sign * radius) / z + s.grid.cy);
        lo[0] = fminf(lo[0], x); hi[0] = fmaxf(hi[0], x);
        lo[1] = fminf(lo[1], y); hi[1] = fmaxf(hi[1], y);
      }
    }
  }
  const float last = (float)(width - 1);
  if (hi[0] < 0 || hi[1] < 0 || lo[0] > last || lo[1] > last) return;
  const int x0 = (int)clampf(lo[0], 0, last), x1 = (int)clampf(hi[0] + 1, 0, last);
  const int y0 = (int)clampf(lo[1], 0, last), y1 = (int)clampf(hi[1] + 1, 0, last);
  for (int y = y0; y <= y1; ++y) {
    for (int x = x0; x <= x1; ++x) {
      const float z = capsule_depth(s.ends[i][0], s.ends[i][1], radius, ray_of(s, x, y));
      if (z < kNear) continue;
      const uint64_t key = visibility_key(1.0f / z, s.mesh->face_count + i);
      uint64_t* slot = s.visible + (int64_t)y * width + x;
      if (key > *slot) *slot = key;  // on a GPU: atomicMax
    }
  }
}

HM_DEVICE Vec3 shade_clutter(const Scene& s, int i, Vec3 p) {
  const Vec3 a = s.ends[i][0], axis = sub(s.ends[i][1], a);
  const float t = clampf(dot(sub(p, a), axis) / (dot(axis, axis) + 1e-9f), 0.0f, 1.0f);
  Surface q;
  q.p = p;
  q.n = scale(sub(p, add(a, scale(axis, t))), 1.0f / clutter_radius(s, i));
  q.albedo = scale(load3(s.batch->clutter_albedo + 3 * ((int64_t)s.item * kClutter + i)),
                   i == 0 ? weave(s, p) : 1.0f);
  q.open = 1.0f;
  q.sky = irradiance(s.batch->irradiance + 27 * (int64_t)s.item, q.n);
  q.in_light = vec((dot(p, s.light_x) - s.light_origin[0]) * s.light_scale,
                   (dot(p, s.light_y) - s.light_origin[1]) * s.light_scale, dot(p, s.light_z));
  q.gloss = 0.0f;
  q.wrap = i == 0 ? 0.0f : 0.6f;
  return reflected(s, q);
}

HM_DEVICE uint8_t respond(const Scene& s, float light) {
  const float t = sqrtf(clampf(light, 0.0f, kToneMax) * (1.0f / kToneMax)) * (kToneTable - 1);
  return s.response[(int)(t + 0.5f)];
}

HM_DEVICE void shade_pixel(const Scene& s, const HmOutput& out, int x, int y) {
  const HmBatch& b = *s.batch;
  const int width = kSuper * b.size;
  const int64_t pixel = ((int64_t)s.item * b.size + y) * b.size + x;
  uint64_t seen[kSuper * kSuper];
  int covered = 0, hand = 0;
  uint64_t front = 0;      // nearest sample of the hand
  float far_rz = 1e9f;     // farthest
  for (int i = 0; i < kSuper * kSuper; ++i) {
    seen[i] = s.visible[(int64_t)(kSuper * y + (i >> 1)) * width + kSuper * x + (i & 1)];
    if (seen[i] == 0) continue;
    ++covered;
    if (face_of(seen[i]) >= s.mesh->face_count) continue;
    ++hand;
    if (seen[i] > front) front = seen[i];
    far_rz = fminf(far_rz, inverse_z_of(seen[i]));
  }
  Vec3 sum = vec(0, 0, 0);
  // Inside one smooth surface a single sample in the pixel's middle stands for all.
  const bool smooth = hand == kSuper * kSuper && inverse_z_of(front) < 1.015f * far_rz;
  const int shaded = smooth ? 1 : kSuper * kSuper;
  float open = -1.0f;
  uint8_t part = kNoPart;
  for (int i = 0; i < shaded; ++i) {
    const uint64_t visible = smooth ? front : seen[i];
    if (visible == 0) continue;
    const int face = face_of(visible);
    const float sx = kSuper * x + (smooth ? 0.5f : (float)(i & 1));
    const float sy = kSuper * y + (smooth ? 0.5f : (float)(i >> 1));
    if (face >= s.mesh->face_count) {
      const Vec3 p = scale(ray_of(s, sx, sy), 1.0f / inverse_z_of(visible));
      sum = add(sum, shade_clutter(s, face - s.mesh->face_count, p));
      continue;
    }
    const Planes& t = s.planes[face];
    const float dx = sx - t.x0, dy = sy - t.y0, z = 1.0f / fmaxf(at(t.inverse_z, dx, dy), 1e-4f);
    const float w1 = clampf(at(t.first, dx, dy) * z, 0.0f, 1.0f);
    const float w2 = clampf(at(t.second, dx, dy) * z, 0.0f, 1.0f - w1);
    const float w[3] = {1.0f - w1 - w2, w1, w2};
    const int32_t* f = s.mesh->faces + 3 * face;
    const Vec3 p = mix3(s.points[f[0]], s.points[f[1]], s.points[f[2]], w[0], w[1], w[2]);
    const Vec3 n = scale(normalised(mix3(s.normals[f[0]], s.normals[f[1]], s.normals[f[2]], w[0],
                                         w[1], w[2])), t.facing);
    if (open < 0.0f) open = openness(s, (int)sx, (int)sy, p, n);
    sum = add(sum, shade_hand(s, face, w, p, n, open, smooth ? 1 : 0));
    if (visible == front) {
      part = s.mesh->parts[f[w[0] >= w1 ? (w[0] >= w2 ? 0 : 2) : (w1 >= w2 ? 1 : 2)]];
    }
  }
  if (smooth) sum = scale(sum, kSuper * kSuper);
  const float share = covered * (1.0f / (kSuper * kSuper));
  Vec3 light = scale(sum, 1.0f / (kSuper * kSuper));
  if (covered < kSuper * kSuper) light = add(light, scale(background_at(s, x, y), 1.0f - share));
  const float* exposure = b.exposure + 3 * (int64_t)s.item;
  out.image[3 * pixel] = respond(s, light.x * exposure[0]);
  out.image[3 * pixel + 1] = respond(s, light.y * exposure[1]);
  out.image[3 * pixel + 2] = respond(s, light.z * exposure[2]);
  out.mask[pixel] = (uint8_t)(hand * 255.0f / (kSuper * kSuper) + 0.5f);
  if (out.depth) out.depth[pixel] = front ? 1.0f / inverse_z_of(front) : 0.0f;
  if (out.parts) out.parts[pixel] = part;
}

}  // namespace
