// One picture's scene: light, texture look-ups, vertices, shadows and occlusion. See raster.cpp.

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
  const uint8_t* base = t.texels[index] + t.offset[slot];
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
  Vec3 arm_axis[2];         // unit, from each hand along its arm: the labelled one, its partner
  Vec3 bounce;              // radiance of the ground: what it throws back on the hand
};

// The surface behind the hand; mirrors the row that grounds.py writes.
struct Ground {
  float on;
  Vec3 normal;              // unit, towards the camera
  float offset;             // normal . point, of every point on it: negative
  Vec3 right, down;         // unit, along the surface
  Vec3 centre;
  float half[2];            // metres from the centre to its borders
  Vec3 first, second;       // linear albedo; of a texture: its gain, its mean
  int pattern;
  float cells;              // of the pattern, or tiles of the texture, per metre
  uint32_t seed;
  float gloss;
  float spread;             // size of the key light over its distance
  float slope[2];           // relative fall of the light per metre
  float corner[2], share;   // the square of the texture that is used, as fractions
};

HM_DEVICE Ground load_ground(const Scene& s) {
  const float* f = s.batch->ground + kGroundFloats * (int64_t)s.item;
  Ground g;
  g.on = f[0];
  g.normal = load3(f + 1);
  g.offset = f[4];
  g.right = load3(f + 5);
  g.down = cross(g.normal, g.right);
  g.centre = load3(f + 8);
  g.half[0] = f[11];
  g.half[1] = f[12];
  g.first = load3(f + 13);
  g.second = load3(f + 16);
  g.pattern = (int)f[19];
  g.cells = f[20];
  g.seed = (uint32_t)f[21];
  g.gloss = f[22];
  g.spread = f[23];
  g.slope[0] = f[24];
  g.slope[1] = f[25];
  g.corner[0] = f[26];
  g.corner[1] = f[27];
  g.share = f[28];
  return g;
}

HM_DEVICE Vec3 vertex_of(const Scene& s, int v) {
  return load3(s.batch->vertices + 3 * ((int64_t)s.item * s.mesh->vertex_count + v));
}

HM_DEVICE Vec3 ray_of(const Scene& s, float x, float y) {
  return vec(s.ray_start[0] + s.ray_step[0] * x, s.ray_start[1] + s.ray_step[1] * y, 1.0f);
}

// Place in the shadow map, and depth towards the light in metres.
HM_DEVICE Vec3 into_light(const Scene& s, Vec3 p) {
  return vec((dot(p, s.light_x) - s.light_origin[0]) * s.light_scale,
             (dot(p, s.light_y) - s.light_origin[1]) * s.light_scale, dot(p, s.light_z));
}

// 1 / z of the ground seen through a sample, 0 where there is none.
HM_DEVICE float ground_inverse_z(const Scene& s, const Ground& g, float x, float y) {
  if (g.on <= 0.0f) return 0.0f;
  const Vec3 ray = ray_of(s, x, y);
  const float rz = dot(ray, g.normal) / g.offset;
  if (!(rz > 0.0f)) return 0.0f;
  const Vec3 from = sub(scale(ray, 1.0f / rz), g.centre);
  const bool inside = fabsf(dot(from, g.right)) < g.half[0] && fabsf(dot(from, g.down)) < g.half[1];
  return inside ? rz : 0.0f;
}

// Irradiance / pi from all around; the ground takes the place of what lies behind it.
HM_DEVICE Vec3 sky_at(const Scene& s, Vec3 n) {
  const Vec3 sky = irradiance(s.batch->irradiance + 27 * (int64_t)s.item, n);
  const float* g = s.batch->ground + kGroundFloats * (int64_t)s.item;
  if (g[0] <= 0.0f) return sky;
  const float share = 0.5f - 0.5f * dot(n, load3(g + 1));  // form factor of an endless plane
  return add(scale(sky, 1.0f - share), scale(s.bounce, share));
}

HM_DEVICE void prepare_ground(Scene* s) {
  s->bounce = vec(0, 0, 0);
  const Ground g = load_ground(*s);
  if (g.on <= 0.0f) return;
  const bool textured = s->batch->ground_texture[s->item] >= 0;
  const Vec3 albedo = textured ? g.second : scale(add(g.first, g.second), 0.5f);
  const float facing = 0.6f * fmaxf(dot(g.normal, s->light_z), 0.0f);  // the hand's shadow off
  const Vec3 key = scale(load3(s->batch->key_light + 3 * (int64_t)s->item), facing);
  const Vec3 sky = irradiance(s->batch->irradiance + 27 * (int64_t)s->item, g.normal);
  s->bounce = mul(albedo, add(sky, key));
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
  s.ambient[v] = sky_at(s, n);
  const float* sleeve = sleeve_of(s);
  // Cloth stands off the arm, within two centimetres of its hem.
  const float cover = clampf((s.mesh->arm[v] - sleeve[0]) * 50.0f + 0.3f, 0.0f, 1.0f);
  const Vec3 p = add(vertex_of(s, v), scale(n, sleeve[1] * cover));
  s.points[v] = p;
  s.in_light[v] = into_light(s, p);
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

const float kShadowBias = 0.0025f;  // metres

// Share of the key light that arrives: 2x2 percentage-closer filtering.
HM_DEVICE float key_visibility(const Scene& s, Vec3 q) {
  const int size = s.batch->shadow_size;
  const float xf = floorf(q.x), yf = floorf(q.y), fx = q.x - xf, fy = q.y - yf;
  float lit[4];
  for (int i = 0; i < 4; ++i) {
    const int x = clampi((int)xf + (i & 1), 0, size - 1), y = clampi((int)yf + (i >> 1), 0, size - 1);
    lit[i] = s.shadow[(int64_t)y * size + x] > q.z + kShadowBias ? 0.0f : 1.0f;
  }
  return (lit[0] * (1 - fx) + lit[1] * fx) * (1 - fy) + (lit[2] * (1 - fx) + lit[3] * fx) * fy;
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

// Points strewn over a disc of radius one.
const int kRing = 12;
HM_DEVICE void ring_at(int i, float* x, float* y) {
  const float ring[kRing][2] = {{0.35f, 0.1f}, {-0.25f, 0.3f}, {-0.1f, -0.38f}, {0.2f, -0.3f},
                                {0.6f, 0.45f}, {-0.15f, 0.75f}, {-0.75f, 0.05f}, {-0.4f, -0.65f},
                                {0.3f, -0.72f}, {0.78f, -0.2f}, {0.1f, 1.0f}, {-0.95f, -0.3f}};
  *x = ring[i][0];
  *y = ring[i][1];
}

// Screen-space ambient occlusion (the estimator of McGuire et al. 2011): 1 = open sky.
HM_DEVICE float openness(const Scene& s, int x, int y, Vec3 p, Vec3 n, float widen) {
  const float* setting = s.batch->occlusion + 2 * (int64_t)s.item;
  if (setting[0] <= 0.0f) return 1.0f;
  const float radius = widen * setting[1], reach = clampf((float)s.grid.fx * radius / p.z, 3.0f, 64.0f);
  float blocked = 0.0f;
  for (int i = 0; i < kRing; ++i) {
    Vec3 q;
    float ax, ay;
    ring_at(i, &ax, &ay);
    if (!point_at(s, x + (int)(ax * reach), y + (int)(ay * reach), &q)) continue;
    const Vec3 d = sub(q, p);
    // In a steep crease the neighbours lie farther off in depth than on the screen.
    const float d2 = dot(d, d), r2 = 4.0f * radius * radius;
    if (d2 >= r2) continue;
    const float rise = dot(d, n) / sqrtf(d2 + 1e-8f) - 0.12f;
    if (rise > 0.0f) blocked += rise * (1.0f - d2 / r2);
  }
  return clampf(1.0f - setting[0] * 2.2f * blocked / kRing, 0.1f, 1.0f);
}

// ---------------------------------------------------------------- reflection

struct Surface {
  Vec3 p, n;         // camera space
  Vec3 albedo;
  Vec3 sky;          // irradiance / pi from all around, occlusion included
  Vec3 in_light;     // place in the shadow map
  float open;        // 1 = nothing near
  float gloss, roughness, wrap;  // no gloss, no wrap: cloth
};

// Cosine law bent around the terminator: 0 at -amount, 1 facing the light, soft at its end.
HM_DEVICE float wrap(float cosine, float amount) {
  const float x = fmaxf(cosine + amount, 0.0f) / (1.0f + amount);
  return x * (1.0f - amount + amount * x);
}

// Light reflected towards the camera; `visibility` is the share of the key light that arrives.
HM_DEVICE Vec3 reflected_lit(const Scene& s, const Surface& a, float visibility) {
  const Vec3 key = load3(s.batch->key_light + 3 * (int64_t)s.item);
  const float cosine = dot(a.n, s.light_z);
  Vec3 light = a.sky;
  float lit = 0.0f;
  const float red = 0.4f * a.wrap, green = 0.2f * a.wrap, blue = 0.12f * a.wrap;
  if (cosine > -red) {
    lit = visibility * (0.4f + 0.6f * a.open);
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
    const float a2 = a.roughness * a.roughness * a.roughness * a.roughness;
    const float d = nh * nh * (a2 - 1.0f) + 1.0f;
    const float miss = 1.0f - lh, miss2 = miss * miss;
    const float fresnel = 0.028f + 0.972f * miss2 * miss2 * miss;
    // The pi of D cancels against that of key_light, which is irradiance / pi.
    const float specular = a2 / (d * d) * fresnel / (4.0f * fmaxf(lh * lh, 0.1f));
    colour = add(colour, scale(key, a.gloss * specular * cosine * lit));
  }
  return colour;
}

HM_DEVICE Vec3 reflected(const Scene& s, const Surface& a) {
  return reflected_lit(s, a, key_visibility(s, a.in_light));
}

}  // namespace
