// Rasteriser and shader of the training images: triangles in, photographs of hands out.
//
// Every stage is one function per vertex, per triangle or per pixel (HM_DEVICE), called by plain
// loops on the CPU (host.cpp) and by the threads of a GPU (device.cu); none of them allocates or
// depends on the order of its calls. No dependency beyond the C++14 library.
//
// Coverage is decided in integers (vertices snapped to 1/256 of a sample, top-left rule), so
// that triangles sharing an edge leave no hole and claim no sample twice, and no compiler flag
// can change that. Depth and barycentrics come from the homogeneous form, in which b_i / z is
// linear over the screen: exact perspective, and no attribute needs clipping.
//
// Frame: +x right, +y down, +z away; metres. Pixel centres at integers. Light is linear RGB.

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define HM_DEVICE __device__ __forceinline__
#define HM_MEMBER __device__ __forceinline__
#define HM_BOTH __host__ __device__ inline
#define HM_BOTH_MEMBER __host__ __device__ inline
#else
#define HM_DEVICE static inline
#define HM_MEMBER inline
#define HM_BOTH static inline
#define HM_BOTH_MEMBER inline
#endif

namespace {

const int kSnap = 256;             // sub-sample positions of a vertex
const int kSuper = 2;              // samples per output pixel and axis
const float kNear = 0.02f;         // metres; nothing nearer is drawn
const float kSnapLimit = 2.0e6f;   // samples; beyond it a vertex is clamped to stay in int64
const int kToneTable = 1024;       // entries of the response curve, over sqrt(light / kToneMax)
const float kToneMax = 8.0f;
const uint8_t kNoPart = 255;
const int kSolids = 26;            // things beside the hand, at most
const int kSolidFloats = 30;
const int kGroundFloats = 29;

struct Vec3 {
  float x, y, z;
};
HM_DEVICE Vec3 vec(float x, float y, float z) { Vec3 r = {x, y, z}; return r; }
HM_DEVICE Vec3 add(Vec3 a, Vec3 b) { return vec(a.x + b.x, a.y + b.y, a.z + b.z); }
HM_DEVICE Vec3 sub(Vec3 a, Vec3 b) { return vec(a.x - b.x, a.y - b.y, a.z - b.z); }
HM_DEVICE Vec3 mul(Vec3 a, Vec3 b) { return vec(a.x * b.x, a.y * b.y, a.z * b.z); }
HM_DEVICE Vec3 scale(Vec3 a, float s) { return vec(a.x * s, a.y * s, a.z * s); }
HM_DEVICE float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
HM_DEVICE Vec3 cross(Vec3 a, Vec3 b) {
  return vec(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}
HM_DEVICE Vec3 normalised(Vec3 a) { return scale(a, 1.0f / sqrtf(dot(a, a) + 1e-20f)); }
HM_DEVICE Vec3 load3(const float* p) { return vec(p[0], p[1], p[2]); }
HM_DEVICE float clampf(float x, float lo, float hi) { return x < lo ? lo : (x > hi ? hi : x); }
HM_DEVICE int clampi(int x, int lo, int hi) { return x < lo ? lo : (x > hi ? hi : x); }
HM_DEVICE Vec3 mix3(Vec3 a, Vec3 b, Vec3 c, float wa, float wb, float wc) {
  return vec(a.x * wa + b.x * wb + c.x * wc, a.y * wa + b.y * wb + c.y * wc,
             a.z * wa + b.z * wb + c.z * wc);
}

}  // namespace

// The structs below are mirrored, field by field, in native.py.
extern "C" {

struct HmMesh {
  const int32_t* faces;        // (F, 3)
  const float* uv;             // (F, 3, 2) fractions of the skin texture, v down
  const uint8_t* parts;        // (V,)
  const float* arm;            // (V,) metres beyond the wrist, 0 on the hand
  const int32_t* fan_start;    // (V + 1,) faces around each vertex: fan[fan_start[v]..]
  const int32_t* fan;          // (3 F,)
  const uint8_t* hand;         // (F,) 1 = of the hand, which has labels; 0 = of the arm
  int32_t vertex_count, face_count;
  int32_t own_vertices;        // the first so many are of the hand with labels, others of a partner's
};

struct HmTextures {
  const uint8_t* const* texels; // (T,) RGBX of the stack that the image is in: its images and mip
                               // levels one after the other
  const int64_t* offset;       // (T, levels) first byte of a level there
  const int32_t* extent;       // (T, levels, 2) height, width
  int32_t count, levels;
};

struct HmBatch {
  const float* vertices;       // (B, V, 3)
  const float* camera;         // (B, 4) fx fy cx cy, output pixels
  const int32_t* skin;         // (B,) index of the skin texture
  const float* skin_gain;      // (B, 3) albedo = gain * texture ** contrast
  const float* skin_contrast;  // (B,)
  const float* irradiance;     // (B, 9, 3) order-2 coefficients of irradiance / pi
  const float* key_direction;  // (B, 3) unit, from the hand to the light
  const float* key_light;      // (B, 3) irradiance / pi of a surface facing the light
  const float* gloss;          // (B, 3) specular strength, roughness, subsurface wrap
  const float* relief;         // (B,) metres of depth per relative darkening of the skin
  const float* occlusion;      // (B, 2) strength 0..1, radius in metres
  const float* sleeve;         // (B, 6) where it starts and its thickness, m; albedo; pattern
  const float* solids;         // (B, kSolids, kSolidFloats) see Solid
  const float* ground;         // (B, kGroundFloats) see Ground
  const int32_t* ground_texture; // (B,) index of a background, -1 = pattern
  const int32_t* background;   // (B,) index of the background
  const float* background_map; // (B, 3, 3) homogeneous output pixel -> ray or texture fraction
  const float* background_blur;// (B,) mip level
  const float* background_gain;// (B, 3) linear light of a texel of value 255
  const float* exposure;       // (B, 3) gain per channel, white balance included
  const float* tone;           // (B, 2) gamma of the response, shoulder start 0..1
  const uint8_t* is_panorama;  // (background textures,)
  int32_t count, size, shadow_size;
};

struct HmOutput {
  uint8_t* image;              // (B, S, S, 3)
  uint8_t* mask;               // (B, S, S) coverage by the bare hand, 0..255
  float* depth;                // (B, S, S) metres of the bare hand, 0 where none; may be null
  uint8_t* parts;              // (B, S, S) label, 255 where nothing is; may be null
  float* normals;              // (B, S, S, 3) outward unit, camera frame, 0 where nothing; may be null
};

}  // extern "C"

namespace {

// ---------------------------------------------------------------- coverage

struct Edges {
  int64_t dx[3], dy[3], at_origin[3];  // 1/256 sample; value at (x0, y0), floored, bias included
  int x0, y0, x1, y1;                  // inclusive box, clamped to the screen
};

// Edge functions of a triangle of snapped corners. Returns false when no sample can be inside.
HM_DEVICE bool setup_edges(const int64_t X[3], const int64_t Y[3], int width, int height,
                           Edges* e) {
  const int64_t area = (X[1] - X[0]) * (Y[2] - Y[0]) - (Y[1] - Y[0]) * (X[2] - X[0]);
  if (area == 0) return false;
  const int order[3] = {0, area > 0 ? 1 : 2, area > 0 ? 2 : 1};
  int64_t lo_x = X[0], hi_x = X[0], lo_y = Y[0], hi_y = Y[0];
  for (int i = 1; i < 3; ++i) {
    if (X[i] < lo_x) lo_x = X[i];
    if (X[i] > hi_x) hi_x = X[i];
    if (Y[i] < lo_y) lo_y = Y[i];
    if (Y[i] > hi_y) hi_y = Y[i];
  }
  const int64_t left = (lo_x + kSnap - 1) >> 8, right = hi_x >> 8;
  const int64_t top = (lo_y + kSnap - 1) >> 8, bottom = hi_y >> 8;
  if (right < 0 || bottom < 0 || left >= width || top >= height) return false;
  e->x0 = left < 0 ? 0 : (int)left;
  e->y0 = top < 0 ? 0 : (int)top;
  e->x1 = right >= width ? width - 1 : (int)right;
  e->y1 = bottom >= height ? height - 1 : (int)bottom;
  if (e->x0 > e->x1 || e->y0 > e->y1) return false;
  for (int i = 0; i < 3; ++i) {
    const int a = order[i], b = order[(i + 1) % 3];
    const int64_t dx = X[b] - X[a], dy = Y[b] - Y[a];
    // A sample on an edge belongs to the triangle on whose top or left that edge lies.
    const int64_t bias = (dy < 0 || (dy == 0 && dx > 0)) ? 0 : -1;
    const int64_t value = dx * ((int64_t)e->y0 * kSnap - Y[a]) -
                          dy * ((int64_t)e->x0 * kSnap - X[a]) + bias;
    e->dx[i] = dx;
    e->dy[i] = dy;
    e->at_origin[i] = value >> 8;  // steps are multiples of 256: the sign of the sum is kept
  }
  return true;
}

template <typename Int, typename Write>
HM_DEVICE void walk_samples(const Edges& e, Write& write) {
  Int r0 = (Int)e.at_origin[0], r1 = (Int)e.at_origin[1], r2 = (Int)e.at_origin[2];
  const Int sx0 = (Int)-e.dy[0], sx1 = (Int)-e.dy[1], sx2 = (Int)-e.dy[2];
  const Int sy0 = (Int)e.dx[0], sy1 = (Int)e.dx[1], sy2 = (Int)e.dx[2];
  for (int y = e.y0; y <= e.y1; ++y) {
    Int w0 = r0, w1 = r1, w2 = r2;
    for (int x = e.x0; x <= e.x1; ++x) {
      if ((w0 | w1 | w2) >= 0) write(x, y);
      w0 += sx0; w1 += sx1; w2 += sx2;
    }
    r0 += sy0; r1 += sy1; r2 += sy2;
  }
}

// Calls write(x, y) for every sample of the triangle.
template <typename Write>
HM_DEVICE void rasterise(const int64_t X[3], const int64_t Y[3], int width, int height,
                         Write& write) {
  Edges e;
  if (!setup_edges(X, Y, width, height, &e)) return;
  bool small = true;  // 32-bit sums cannot overflow: steps below 2^18, a box of 2^10 an axis
  for (int i = 0; i < 3; ++i) {
    small = small && e.dx[i] < (1 << 18) && e.dx[i] > -(1 << 18) && e.dy[i] < (1 << 18) &&
            e.dy[i] > -(1 << 18);
  }
  if (small && width <= 1024 && height <= 1024) walk_samples<int32_t>(e, write);
  else walk_samples<int64_t>(e, write);
}

HM_DEVICE int64_t snap(double samples) {
  if (samples > kSnapLimit) samples = kSnapLimit;
  if (samples < -kSnapLimit) samples = -kSnapLimit;
  return (int64_t)floor(samples * kSnap + 0.5);
}

// ---------------------------------------------------------------- triangles in perspective

struct Camera {
  double fx, fy, cx, cy;  // of the sample grid
};

// b1/z, b2/z and 1/z as linear functions of the sample, around (x0, y0).
struct Planes {
  float first[3], second[3], inverse_z[3];
  int16_t x0, y0;
  int8_t mip, facing;
};

HM_DEVICE float at(const float plane[3], float dx, float dy) {
  return plane[0] * dx + plane[1] * dy + plane[2];
}

HM_DEVICE void cross_d(const double a[3], const double b[3], double out[3]) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

HM_DEVICE void plane_from(const double normal[3], double scale, const Camera& c, int x0, int y0,
                          float out[3]) {
  const double rx = (x0 - c.cx) / c.fx, ry = (y0 - c.cy) / c.fy;
  out[0] = (float)(normal[0] * scale / c.fx);
  out[1] = (float)(normal[1] * scale / c.fy);
  out[2] = (float)((normal[0] * rx + normal[1] * ry + normal[2]) * scale);
}

// With P = z ray: b_i / z = ray . (P_j x P_k) / det, and 1 / z is their sum.
HM_DEVICE bool setup_planes(const double P[3][3], const Camera& c, int x0, int y0, Planes* out) {
  double n0[3], n1[3], n2[3], sum[3];
  cross_d(P[1], P[2], n0);
  cross_d(P[2], P[0], n1);
  cross_d(P[0], P[1], n2);
  const double det = P[0][0] * n0[0] + P[0][1] * n0[1] + P[0][2] * n0[2];
  if (fabs(det) < 1e-18) return false;
  for (int i = 0; i < 3; ++i) sum[i] = n0[i] + n1[i] + n2[i];
  plane_from(n1, 1.0 / det, c, x0, y0, out->first);
  plane_from(n2, 1.0 / det, c, x0, y0, out->second);
  plane_from(sum, 1.0 / det, c, x0, y0, out->inverse_z);
  out->x0 = (int16_t)x0;
  out->y0 = (int16_t)y0;
  out->facing = det < 0 ? 1 : -1;  // outward counter-clockwise faces: det < 0 looks at us
  return true;
}

// Nearer wins, and of equals the lower face: the same whatever the order of the triangles.
HM_DEVICE uint64_t visibility_key(float inverse_z, int face) {
  uint32_t bits;
  memcpy(&bits, &inverse_z, 4);
  return ((uint64_t)bits << 32) | (uint32_t)(0xffffffffu - (uint32_t)face);
}
HM_DEVICE int face_of(uint64_t key) { return (int)(0xffffffffu - (uint32_t)(key & 0xffffffffu)); }
HM_DEVICE float inverse_z_of(uint64_t key) {
  const uint32_t bits = (uint32_t)(key >> 32);
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// The larger of what is there and what comes. On a GPU many threads come at once.
HM_DEVICE void raise(uint64_t* slot, uint64_t key) {
#ifdef __CUDACC__
  atomicMax((unsigned long long*)slot, (unsigned long long)key);
#else
  if (key > *slot) *slot = key;
#endif
}
HM_DEVICE void raise(float* slot, float value) {
#ifdef __CUDACC__
  // Floats sort like their bits as signed integers, negative ones against their bits as unsigned.
  if (!(value > *slot)) return;  // what is there only ever rises
  const int bits = __float_as_int(value);
  if (bits >= 0) atomicMax((int*)slot, bits);
  else atomicMin((unsigned*)slot, (unsigned)bits);
#else
  if (value > *slot) *slot = value;
#endif
}

struct WriteVisible {
  uint64_t* buffer;
  int width, face;
  const Planes* planes;
  HM_MEMBER void operator()(int x, int y) {
    const float rz = at(planes->inverse_z, (float)(x - planes->x0), (float)(y - planes->y0));
    if (rz > 0.0f && rz <= 1.0f / kNear) raise(buffer + (int64_t)y * width + x, visibility_key(rz, face));
  }
};

struct WriteShadow {
  float* depth;  // along the light, larger is nearer to it
  int width, x0, y0;
  float plane[3];
  HM_MEMBER void operator()(int x, int y) {
    raise(depth + (int64_t)y * width + x, at(plane, (float)(x - x0), (float)(y - y0)));
  }
};

// Draws one face of the mesh: whole, or the one or two pieces of it beyond the near plane.
HM_DEVICE void draw_face(const double P[3][3], const Camera& c, int width, int face,
                         float texel_area, Planes* planes, uint64_t* buffer) {
  double poly[4][3];
  int corners = 0;
  for (int i = 0; i < 3; ++i) {
    const double* a = P[i];
    const double* b = P[(i + 1) % 3];
    const bool a_in = a[2] >= kNear, b_in = b[2] >= kNear;
    if (a_in) { for (int k = 0; k < 3; ++k) poly[corners][k] = a[k]; ++corners; }
    if (a_in != b_in) {
      // From the far end to the near one, so that both faces of an edge cut it at one point.
      const double* f = a_in ? a : b;
      const double* n = a_in ? b : a;
      const double t = (f[2] - kNear) / (f[2] - n[2]);
      for (int k = 0; k < 3; ++k) poly[corners][k] = f[k] + t * (n[k] - f[k]);
      poly[corners][2] = kNear;
      ++corners;
    }
  }
  if (corners < 3) return;
  int64_t X[4], Y[4];
  double lo_x = 1e9, lo_y = 1e9, area = 0.0, sx[4], sy[4];
  for (int i = 0; i < corners; ++i) {
    sx[i] = c.fx * poly[i][0] / poly[i][2] + c.cx;
    sy[i] = c.fy * poly[i][1] / poly[i][2] + c.cy;
    X[i] = snap(sx[i]);
    Y[i] = snap(sy[i]);
    if (sx[i] < lo_x) lo_x = sx[i];
    if (sy[i] < lo_y) lo_y = sy[i];
  }
  if (lo_x > width || lo_y > width) return;
  const int x0 = lo_x < 0 ? 0 : (int)lo_x, y0 = lo_y < 0 ? 0 : (int)lo_y;
  if (!setup_planes(P, c, x0, y0, planes)) return;
  for (int i = 1; i + 1 < corners; ++i) {
    area += fabs((sx[i] - sx[0]) * (sy[i + 1] - sy[0]) - (sy[i] - sy[0]) * (sx[i + 1] - sx[0]));
  }
  // Mip level at which a texel is about a sample.
  int mip = 0;
  for (double ratio = texel_area / (0.5 * area + 1e-9); ratio > 2.0 && mip < 6; ratio *= 0.25) ++mip;
  planes->mip = (int8_t)mip;
  WriteVisible write = {buffer, width, face, planes};
  for (int i = 1; i + 1 < corners; ++i) {
    const int64_t TX[3] = {X[0], X[i], X[i + 1]}, TY[3] = {Y[0], Y[i], Y[i + 1]};
    rasterise(TX, TY, width, width, write);
  }
}

}  // namespace
