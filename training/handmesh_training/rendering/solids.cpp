// Things beside the hand: balls, boxes, tapered cylinders and capsules, met by rays exactly.
//
// A solid is a unit shape under rotation and scaling, so a ray is carried into its frame and met
// there, in double precision: a pen a metre away is thin against its distance.

#include "pattern.cpp"

namespace {

const int kNoSolid = 0, kBall = 1, kBox = 2, kCylinder = 3, kCapsule = 4;

// Mirrors, float by float, the rows that solids.py writes.
struct Solid {
  int kind;
  Vec3 centre;          // camera frame, metres
  Vec3 axis[3];         // orthonormal
  Vec3 half;            // metres along the axes; a capsule's y: half the distance of its balls
  float taper;          // radius at +y over radius at -y
  float casts;          // 1 = casts the key light's shadow
  Vec3 first, second;   // linear albedo
  int pattern;
  float cells;          // of the pattern, per metre
  uint32_t seed;
  float gloss, roughness, wrap;
};

HM_DEVICE Solid load_solid(const Scene& s, int i) {
  const float* f = s.batch->solids + kSolidFloats * ((int64_t)s.item * kSolids + i);
  Solid o;
  o.kind = (int)f[0];
  o.centre = load3(f + 1);
  for (int k = 0; k < 3; ++k) o.axis[k] = load3(f + 4 + 3 * k);
  o.half = load3(f + 13);
  o.taper = f[16];
  o.casts = f[17];
  o.first = load3(f + 18);
  o.second = load3(f + 21);
  o.pattern = (int)f[24];
  o.cells = f[25];
  o.seed = (uint32_t)f[26];
  o.gloss = f[27];
  o.roughness = f[28];
  o.wrap = f[29];
  return o;
}

// A capsule's frame is scaled by its radius also along y; elsewhere by the half extents.
HM_DEVICE Vec3 unit_of(const Solid& o) {
  return o.kind == kCapsule ? vec(o.half.x, o.half.x, o.half.z) : o.half;
}

// ---------------------------------------------------------------- rays in the unit frame

HM_DEVICE bool meet_ball(const double o[3], const double d[3], double y, double radius, double* t0,
                         double* t1) {
  const double oy = o[1] - y;
  const double a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
  const double b = o[0] * d[0] + oy * d[1] + o[2] * d[2];
  const double c = o[0] * o[0] + oy * oy + o[2] * o[2] - radius * radius;
  const double disc = b * b - a * c;
  if (disc < 0.0) return false;
  const double root = sqrt(disc);
  *t0 = (-b - root) / a;
  *t1 = (-b + root) / a;
  return true;
}

// Cuts [t0, t1] to |o + t d| <= limit along one axis.
HM_DEVICE bool cut_slab(double o, double d, double limit, double* t0, double* t1) {
  if (fabs(d) < 1e-12) return fabs(o) <= limit;
  const double p = (-limit - o) / d, q = (limit - o) / d;
  const double lo = p < q ? p : q, hi = p < q ? q : p;
  if (lo > *t0) *t0 = lo;
  if (hi < *t1) *t1 = hi;
  return *t0 < *t1;
}

// Cuts [t0, t1], already between the ends, to the inside of x^2 + z^2 = (mean + slope y)^2.
HM_DEVICE bool cut_cone(const double o[3], const double d[3], double mean, double slope, double* t0,
                        double* t1) {
  const double r = mean + slope * o[1], dr = slope * d[1];
  const double a = d[0] * d[0] + d[2] * d[2] - dr * dr;
  const double b = o[0] * d[0] + o[2] * d[2] - r * dr;
  const double c = o[0] * o[0] + o[2] * o[2] - r * r;
  const bool in0 = (a * *t0 + 2 * b) * *t0 + c <= 0.0, in1 = (a * *t1 + 2 * b) * *t1 + c <= 0.0;
  if (in0 && in1) return true;  // a piece of a cone is convex
  const double disc = b * b - a * c;
  if (disc < 0.0 || fabs(a) < 1e-30) return false;
  const double root = sqrt(disc), p = (-b - root) / a, q = (-b + root) / a;
  const double lo = p < q ? p : q, hi = p < q ? q : p;
  if (in0 || in1) {  // one root lies between the ends
    const double cut = lo > *t0 && lo < *t1 ? lo : hi;
    if (in0) *t1 = cut; else *t0 = cut;
    return *t0 < *t1;
  }
  if (a <= 0.0 || lo < *t0 || hi > *t1) return false;
  *t0 = lo;
  *t1 = hi;
  return true;
}

// Where the ray o + t d, in the solid's unit frame, enters and leaves it.
HM_DEVICE bool meet_solid(const Solid& s, const double o[3], const double d[3], double* t0,
                          double* t1) {
  const double slope = 0.5 * (s.taper - 1.0), mean = 0.5 * (s.taper + 1.0);
  *t0 = -1e9;
  *t1 = 1e9;
  if (s.kind == kBall) return meet_ball(o, d, 0.0, 1.0, t0, t1);
  if (s.kind == kBox) {
    for (int k = 0; k < 3; ++k) {
      if (!cut_slab(o[k], d[k], 1.0, t0, t1)) return false;
    }
    return true;
  }
  if (s.kind == kCylinder) {
    return cut_slab(o[1], d[1], 1.0, t0, t1) && cut_cone(o, d, mean, slope, t0, t1);
  }
  const double length = s.half.y / s.half.x;
  bool hit = cut_slab(o[1], d[1], length, t0, t1) && cut_cone(o, d, mean, slope / length, t0, t1);
  for (int end = -1; end <= 1; end += 2) {
    double b0, b1;
    if (!meet_ball(o, d, end * length, end < 0 ? 1.0 : s.taper, &b0, &b1)) continue;
    *t0 = hit && *t0 < b0 ? *t0 : b0;
    *t1 = hit && *t1 > b1 ? *t1 : b1;
    hit = true;
  }
  return hit;
}

HM_DEVICE void into_frame(const Solid& s, const double p[3], double out[3]) {
  const Vec3 unit = unit_of(s);
  const double h[3] = {unit.x, unit.y, unit.z};
  for (int k = 0; k < 3; ++k) {
    out[k] = (s.axis[k].x * p[0] + s.axis[k].y * p[1] + s.axis[k].z * p[2]) / h[k];
  }
}

// Distances along a ray through `from`, camera frame, at which it enters and leaves the solid.
HM_DEVICE bool meet_ray(const Solid& s, const double from[3], const double ray[3], double* t0,
                        double* t1) {
  double o[3], d[3];
  const double rel[3] = {from[0] - s.centre.x, from[1] - s.centre.y, from[2] - s.centre.z};
  into_frame(s, rel, o);
  into_frame(s, ray, d);
  return meet_solid(s, o, d, t0, t1);
}

// Outward unit normal at a point of the surface, given in the unit frame.
HM_DEVICE Vec3 normal_at(const Solid& s, Vec3 q) {
  const Vec3 unit = unit_of(s);
  const float slope = 0.5f * (s.taper - 1.0f), mean = 0.5f * (s.taper + 1.0f);
  const float rim = sqrtf(q.x * q.x + q.z * q.z);
  Vec3 n = q;
  if (s.kind == kBox) {
    // Edges are broken over two millimetres: they catch the light.
    const float bevel = 0.002f;
    n = vec(fmaxf(fabsf(q.x) - 1 + bevel / unit.x, 0) * (q.x < 0 ? -1.0f : 1.0f) * unit.x * unit.x,
            fmaxf(fabsf(q.y) - 1 + bevel / unit.y, 0) * (q.y < 0 ? -1.0f : 1.0f) * unit.y * unit.y,
            fmaxf(fabsf(q.z) - 1 + bevel / unit.z, 0) * (q.z < 0 ? -1.0f : 1.0f) * unit.z * unit.z);
  } else if (s.kind == kCylinder) {
    const float off_side = fabsf(rim - mean - slope * q.y) * unit.x;
    const float off_end = (1.0f - fabsf(q.y)) * unit.y;
    n = off_end < off_side ? vec(0, q.y, 0) : vec(q.x, -slope * rim, q.z);
  } else if (s.kind == kCapsule) {
    const float length = s.half.y / s.half.x;
    n = fabsf(q.y) < length ? vec(q.x, -slope / length * rim, q.z)
                            : vec(q.x, q.y - (q.y < 0 ? -length : length), q.z);
  }
  n = vec(n.x / unit.x, n.y / unit.y, n.z / unit.z);
  return normalised(add(add(scale(s.axis[0], n.x), scale(s.axis[1], n.y)), scale(s.axis[2], n.z)));
}

// Half extents of the box around it.
HM_DEVICE Vec3 bounds_of(const Solid& s) {
  const float wide = s.kind == kCylinder || s.kind == kCapsule ? fmaxf(1.0f, s.taper) : 1.0f;
  const float ends = s.kind == kCapsule ? s.half.x * wide : 0.0f;
  return vec(s.half.x * wide, s.half.y + ends, s.half.z * wide);
}

HM_DEVICE Vec3 corner_of(const Solid& s, int corner) {
  const Vec3 b = bounds_of(s);
  return add(s.centre, add(add(scale(s.axis[0], corner & 1 ? b.x : -b.x),
                               scale(s.axis[1], corner & 2 ? b.y : -b.y)),
                           scale(s.axis[2], corner & 4 ? b.z : -b.z)));
}

// ---------------------------------------------------------------- drawing

// Inclusive box of integers around some points, cut to [0, last]; false when nothing is left.
struct Span {
  int x0, y0, x1, y1;
};
HM_DEVICE bool cut_span(const float lo[2], const float hi[2], int last, Span* out) {
  if (hi[0] < 0 || hi[1] < 0 || lo[0] > last || lo[1] > last) return false;
  out->x0 = (int)clampf(floorf(lo[0]), 0, (float)last);
  out->y0 = (int)clampf(floorf(lo[1]), 0, (float)last);
  out->x1 = (int)clampf(hi[0] + 1, 0, (float)last);
  out->y1 = (int)clampf(hi[1] + 1, 0, (float)last);
  return true;
}

// Which samples of a box one of several threads visits: every `across`-th column from column `x`,
// every `down`-th row from row `y`.
struct Lane {
  int x, y, across, down;
};

// Ids after the faces' mark the solids in the visibility buffer. What the ground hides is left
// out here, since the ground itself is drawn with the background.
HM_DEVICE void draw_solid(const Scene& s, int i, Lane lane) {
  const Solid o = load_solid(s, i);
  if (o.kind == kNoSolid) return;
  const int width = kSuper * s.batch->size;
  float lo[2] = {1e9f, 1e9f}, hi[2] = {-1e9f, -1e9f}, nearest = 1e9f;
  for (int corner = 0; corner < 8; ++corner) {
    const Vec3 p = corner_of(o, corner);
    nearest = fminf(nearest, p.z);
    const float z = fmaxf(p.z, kNear);
    const float q[2] = {(float)(s.grid.fx * p.x / z + s.grid.cx),
                        (float)(s.grid.fy * p.y / z + s.grid.cy)};
    for (int k = 0; k < 2; ++k) {
      lo[k] = fminf(lo[k], q[k]);
      hi[k] = fmaxf(hi[k], q[k]);
    }
  }
  if (nearest < kNear) lo[0] = lo[1] = 0.0f, hi[0] = hi[1] = (float)width;  // no sound box
  Span box;
  if (!cut_span(lo, hi, width - 1, &box)) return;
  const Ground ground = load_ground(s);
  const uint64_t best = visibility_key(1.0f / fmaxf(nearest, kNear), 0);
  const double back[3] = {-o.centre.x, -o.centre.y, -o.centre.z};
  double from[3];
  into_frame(o, back, from);
  for (int y = box.y0 + lane.y; y <= box.y1; y += lane.down) {
    for (int x = box.x0 + lane.x; x <= box.x1; x += lane.across) {
      uint64_t* slot = s.visible + (int64_t)y * width + x;
      if (*slot > best) continue;  // something nearer than any of it
      const double ray[3] = {(x - s.grid.cx) / s.grid.fx, (y - s.grid.cy) / s.grid.fy, 1.0};
      double d[3], t0, t1;
      into_frame(o, ray, d);
      if (!meet_solid(o, from, d, &t0, &t1) || t0 < kNear) continue;
      const float rz = (float)(1.0 / t0);
      if (ground_inverse_z(s, ground, (float)x, (float)y) > rz) continue;
      raise(slot, visibility_key(rz, s.mesh->face_count + i));
    }
  }
}

// As for the hand, the side turned away from the light casts the shadow.
HM_DEVICE void draw_solid_shadow(const Scene& s, int i, Lane lane) {
  const Solid o = load_solid(s, i);
  if (o.kind == kNoSolid || o.casts <= 0.0f) return;
  const int size = s.batch->shadow_size;
  float lo[2] = {1e9f, 1e9f}, hi[2] = {-1e9f, -1e9f};
  for (int corner = 0; corner < 8; ++corner) {
    const Vec3 q = into_light(s, corner_of(o, corner));
    lo[0] = fminf(lo[0], q.x); hi[0] = fmaxf(hi[0], q.x);
    lo[1] = fminf(lo[1], q.y); hi[1] = fmaxf(hi[1], q.y);
  }
  Span box;
  if (!cut_span(lo, hi, size - 1, &box)) return;
  const double ray[3] = {s.light_z.x, s.light_z.y, s.light_z.z};
  for (int y = box.y0 + lane.y; y <= box.y1; y += lane.down) {
    for (int x = box.x0 + lane.x; x <= box.x1; x += lane.across) {
      const double u = s.light_origin[0] + x / (double)s.light_scale;
      const double v = s.light_origin[1] + y / (double)s.light_scale;
      const double from[3] = {u * s.light_x.x + v * s.light_y.x, u * s.light_x.y + v * s.light_y.y,
                              u * s.light_x.z + v * s.light_y.z};
      double t0, t1;
      if (!meet_ray(o, from, ray, &t0, &t1)) continue;
      raise(s.shadow + (int64_t)y * size + x, (float)t0);
    }
  }
}

// ---------------------------------------------------------------- shading

// A head's skin and hair, eyes, brows and mouth, from its unit ball: +z ahead, +y down.
HM_DEVICE Vec3 head_albedo(const Solid& o, Vec3 q) {
  const float style = random_at(0, 0, 0, o.seed), ruffle = noise(scale(q, 4.0f), o.seed);
  const float line = -0.42f - 0.75f * q.z + 0.35f * style + 0.25f * (ruffle - 0.5f);
  const float side = fabsf(q.x) > 0.72f - 0.15f * style && style > 0.45f ? 0.9f : 0.0f;
  const float hair = smooth_step(-0.06f, 0.06f, line + side - q.y - (q.z < 0.1f ? q.z : 0.0f));
  Vec3 skin = o.first;
  if (q.z > 0.0f) {
    const float ax = fabsf(q.x);
    const float ex = (ax - 0.36f) / 0.15f, ey = (q.y + 0.06f) / 0.075f;
    const float by = (q.y + 0.26f - 0.1f * ax) / 0.05f, bx = (ax - 0.37f) / 0.24f;
    const float mx = q.x / 0.3f, my = (q.y - 0.52f) / 0.07f;
    const float eye = 1.0f - smooth_step(0.6f, 1.3f, ex * ex + ey * ey);
    const float brow = 1.0f - smooth_step(0.6f, 1.4f, bx * bx + by * by);
    const float mouth = 1.0f - smooth_step(0.6f, 1.4f, mx * mx + my * my);
    const float nx = q.x / 0.16f, ny = (q.y - 0.26f) / 0.06f;
    const float nose = 1.0f - smooth_step(0.2f, 1.5f, nx * nx + ny * ny);
    skin = blend3(skin, o.second, 0.75f * brow);
    skin = scale(skin, 1.0f - 0.75f * eye - 0.35f * nose);
    skin = mul(skin, vec(1.0f - 0.15f * mouth, 1.0f - 0.5f * mouth, 1.0f - 0.45f * mouth));
    const float beard = random_at(1, 0, 0, o.seed) < 0.3f ? smooth_step(0.25f, 0.6f, q.y) : 0.0f;
    skin = blend3(skin, o.second, 0.6f * beard * (1.0f - mouth));
  }
  const float strand = 0.6f + 0.8f * noise(vec(14.0f * q.x, 2.0f * q.y, 14.0f * q.z), o.seed + 1);
  return blend3(skin, scale(o.second, strand), hair);
}

// Albedo at a point of the unit frame; `pixel` is the pixel's width in metres.
HM_DEVICE Vec3 solid_albedo(const Solid& o, Vec3 q, float pixel) {
  const Vec3 unit = unit_of(o);
  const Vec3 cells = scale(mul(q, unit), o.cells);
  const float width = pixel * o.cells;
  switch (o.pattern) {
    case kHead:
      return head_albedo(o, q);
    case kNail: {  // at the +y end, on the +z side
      const float top = o.half.y / o.half.x + 0.45f * o.taper;
      const float x = q.x / 0.62f, y = (q.y - top + 0.55f) / 0.75f;
      const float nail = q.z > 0 ? 1.0f - smooth_step(0.7f, 1.2f, x * x * x * x + y * y * y * y) : 0.0f;
      return blend3(o.first, o.second, nail);
    }
    case kScreen: {
      if (q.z < 0.9f || fabsf(q.x) > 0.92f || fabsf(q.y) > 0.94f) return o.first;
      const float picture = pattern(kTiles, o.seed, cells, width);
      return scale(o.second, 0.35f + 0.65f * picture + 0.5f * noise(scale(cells, 0.3f), o.seed));
    }
    case kLabel: {
      if (fabsf(q.y) > 0.55f) return o.first;
      const float around = 0.5f * turn(q.z, q.x) * 6.2832f * unit.x * o.cells;
      return scale(o.second, 1.0f - 0.7f * pattern(kText, o.seed, vec(around, cells.y, 0), width));
    }
    case kSleeved:
      return q.y > 0.0f ? scale(o.second, 0.8f + 0.4f * noise(cells, o.seed)) : o.first;
    default:
      return blend3(o.first, o.second, pattern(o.pattern, o.seed, cells, width));
  }
}

// What the ray through a sample sees of solid i; `rz` is its inverse depth there.
HM_DEVICE Vec3 shade_solid(const Scene& s, int i, float sx, float sy, float rz) {
  const Solid o = load_solid(s, i);
  const Vec3 p = scale(ray_of(s, sx, sy), 1.0f / rz);
  const double rel[3] = {(double)p.x - o.centre.x, (double)p.y - o.centre.y,
                         (double)p.z - o.centre.z};
  double local[3];
  into_frame(o, rel, local);
  const Vec3 q = vec((float)local[0], (float)local[1], (float)local[2]);
  Surface a;
  a.p = p;
  a.n = normal_at(o, q);
  a.albedo = solid_albedo(o, q, p.z * kSuper / (float)s.grid.fx);
  a.open = o.casts > 0.0f ? openness(s, (int)sx, (int)sy, p, a.n, 1.0f) : 1.0f;  // near the hand
  a.sky = scale(sky_at(s, a.n), a.open);
  a.in_light = into_light(s, p);
  a.gloss = o.gloss;
  a.roughness = o.roughness;
  a.wrap = o.wrap;
  return reflected(s, a);
}

}  // namespace
