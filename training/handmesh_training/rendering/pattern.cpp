// Made-up surfaces: noise and patterns in two or three dimensions, filtered to the pixel.

#include "scene.cpp"

namespace {

// Kinds of pattern; mirrored in solids.py.
const int kMottle = 1, kStripes = 2, kPlaid = 3, kBricks = 4, kTiles = 5, kWood = 6, kText = 7,
          kBlots = 8, kHead = 16, kNail = 17, kScreen = 18, kLabel = 19, kSleeved = 20;

// The finaliser of MurmurHash3 (Appleby, public domain): every bit of the input counts.
HM_DEVICE uint32_t scramble(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

HM_DEVICE float random_at(int x, int y, int z, uint32_t seed) {  // [0, 1)
  const uint32_t h = (uint32_t)x * 0x9e3779b1u ^ (uint32_t)y * 0x85157af5u ^ (uint32_t)z * 0xb5297a4du;
  return (scramble(h + seed) >> 8) * (1.0f / 16777216.0f);
}

HM_DEVICE float smooth(float t) { return t * t * (3.0f - 2.0f * t); }
HM_DEVICE float smooth_step(float low, float high, float x) {
  return smooth(clampf((x - low) / (high - low), 0.0f, 1.0f));
}
HM_DEVICE float blend(float a, float b, float t) { return a + (b - a) * t; }

// Value noise, lattice of side one: [0, 1), mean a half.
HM_DEVICE float noise(Vec3 q, uint32_t seed) {
  const float fx = floorf(q.x), fy = floorf(q.y), fz = floorf(q.z);
  const int x = (int)fx, y = (int)fy, z = (int)fz;
  const float u = smooth(q.x - fx), v = smooth(q.y - fy), w = smooth(q.z - fz);
  float layer[2];
  for (int k = 0; k < 2; ++k) {
    const float top = blend(random_at(x, y, z + k, seed), random_at(x + 1, y, z + k, seed), u);
    const float low = blend(random_at(x, y + 1, z + k, seed), random_at(x + 1, y + 1, z + k, seed), u);
    layer[k] = blend(top, low, v);
  }
  return blend(layer[0], layer[1], w);
}

// Share of [x - width / 2, x + width / 2] on bands of the given duty, of period one.
HM_DEVICE float bands(float x, float duty, float width) {
  width = fmaxf(width, 1e-3f);
  const float a = x - 0.5f * width, b = x + 0.5f * width, fa = floorf(a), fb = floorf(b);
  return ((fb - fa) * duty + fminf(b - fb, duty) - fminf(a - fa, duty)) / width;
}

// How much of the second colour there is at q (in cells); `width` of a pixel in cells.
HM_DEVICE float pattern(int kind, uint32_t seed, Vec3 q, float width) {
  const float keep = 1.0f - smooth_step(0.35f, 1.2f, width);  // finer than a pixel: its mean
  switch (kind) {
    case kMottle:
      return blend(0.5f, 0.6f * noise(q, seed) + 0.4f * noise(scale(q, 2.7f), seed + 1), keep);
    case kStripes:
      return bands(q.x, 0.5f, width);
    case kPlaid:
      return 0.45f * bands(q.x, 0.45f, width) + 0.35f * bands(q.y, 0.45f, width) +
             0.2f * bands(3.0f * q.x + 0.3f, 0.2f, 3.0f * width);
    case kBricks:
    case kTiles: {
      const float row = floorf(q.y);
      const float x = kind == kBricks ? 0.4f * q.x + 0.5f * ((int)row & 1) : q.x;
      const float gap = kind == kBricks ? 0.055f : 0.05f;
      const float joint = fmaxf(bands(x, gap, kind == kBricks ? 0.4f * width : width),
                                bands(q.y, kind == kBricks ? 0.13f : 0.05f, width));
      const float tone = (kind == kBricks ? 0.45f : 0.15f) * random_at((int)floorf(x), (int)row, 0, seed);
      return blend(blend(0.2f, tone, keep), 1.0f, joint);
    }
    case kWood: {
      const float bow = 2.0f * noise(vec(0.25f * q.x, 1.1f * q.y, 0.0f), seed);
      const float ring = 0.5f + 0.5f * sinf(6.2832f * (1.3f * q.y + bow));
      const float grain = noise(vec(0.7f * q.x, 14.0f * q.y, 0.0f), seed + 1);
      return blend(0.5f, 0.5f * ring + 0.5f * grain, keep);
    }
    case kText: {
      const int row = (int)floorf(q.y);
      const float word = noise(vec(1.6f * q.x, (float)row, 0.5f), seed);
      const float letter = 0.55f + 0.45f * noise(vec(7.0f * q.x, 3.0f * q.y, 0.5f), seed + 1);
      const float line = random_at(0, row, 1, seed) < 0.15f ? 0.0f : bands(q.y, 0.42f, width);
      return line * blend(0.4f, smooth_step(0.36f, 0.46f, word) * letter, keep);
    }
    case kBlots:
      return blend(0.5f, smooth_step(0.46f, 0.54f, noise(q, seed)), keep);
    default:
      return 0.0f;
  }
}

HM_DEVICE Vec3 blend3(Vec3 a, Vec3 b, float t) { return add(a, scale(sub(b, a), t)); }

}  // namespace
