// Half and the tensor cores for cuda_fibers.h. Included behind params.h, which defines Stored.
#pragma once

#include "params.h"

#if HM_HALF
static inline float widen(Stored s) {
  _Float16 h;
  memcpy(&h, &s.bits, 2);
  return static_cast<float>(h);
}
static inline Stored narrow(float f) {
  const _Float16 h = static_cast<_Float16>(f);
  Stored s;
  memcpy(&s.bits, &h, 2);
  return s;
}

// 16 x 16 tiles: each thread of a warp loads whole ones, and computes 8 sums of its own.
struct Left { float v[256]; };
struct Right { float v[256]; };
struct Sums { float r[8]; };

static inline void check(const void* address, int stride, int bytes) {
  if (reinterpret_cast<uintptr_t>(address) % 32 != 0 || stride * bytes % 16 != 0)
    shim::failure = "a tile is not aligned to 32 bytes, or its stride not to 16";
}
static inline void load_left(Left& a, const Stored* from, int stride) {
  check(from, stride, 2);
  for (int i = 0; i < 256; ++i) a.v[i] = widen(from[i / 16 * stride + i % 16]);
}
static inline void load_right(Right& b, const Stored* from, int stride) {
  check(from, stride, 2);
  for (int i = 0; i < 256; ++i) b.v[i] = widen(from[i / 16 * stride + i % 16]);
}
static inline void multiply_add(Sums& d, const Left& a, const Right& b) {
  const int lane = threadIdx.x % 32, row = lane / 2, column = lane % 2 * 8;
  for (int i = 0; i < 8; ++i)
    for (int k = 0; k < 16; ++k) d.r[i] += a.v[row * 16 + k] * b.v[k * 16 + column + i];
}
static inline void store_sums(float* to, const Sums& d, int stride) {
  check(to, stride, 4);
  const int lane = threadIdx.x % 32, row = lane / 2, column = lane % 2 * 8;
  for (int i = 0; i < 8; ++i) to[row * stride + column + i] = d.r[i];
}
static inline void clear(Sums& d) { memset(d.r, 0, sizeof d.r); }
#endif
