// Stored numbers, read four at a time, and always computed with as float.
//
// Half is converted by its PTX instruction: NVRTC comes without cuda_fp16.h. Compiled for the CPU
// (HM_SHIM, see tests/handmesh_kernels/shim) the shim has its own.
#pragma once

#include "params.h"

#if HM_HALF
#ifndef HM_SHIM
__device__ __forceinline__ float widen(Stored s) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(s.bits));
  return f;
}
__device__ __forceinline__ Stored narrow(float f) {
  Stored s;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(s.bits) : "f"(f));
  return s;
}
#endif
struct __align__(8) Stored4 { Stored x, y, z, w; };
#else
__device__ __forceinline__ float widen(float f) { return f; }
__device__ __forceinline__ Stored narrow(float f) { return f; }
typedef float4 Stored4;
#endif

// Four numbers from an address that is a multiple of four of them: one load instruction.
__device__ __forceinline__ float4 load4(const Stored* from) {
  const Stored4 s = *reinterpret_cast<const Stored4*>(from);
  return make_float4(widen(s.x), widen(s.y), widen(s.z), widen(s.w));
}

#if HM_HALF
__device__ __forceinline__ float4 load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
#endif

__device__ __forceinline__ void store4(float* to, float4 v) {
  *reinterpret_cast<float4*>(to) = v;
}

// a + f * v, element by element.
__device__ __forceinline__ float4 add_scaled(float4 a, float f, float4 v) {
  return make_float4(a.x + f * v.x, a.y + f * v.y, a.z + f * v.z, a.w + f * v.w);
}

__device__ __forceinline__ float4 relu4(float4 v) {
  return make_float4(fmaxf(v.x, 0.f), fmaxf(v.y, 0.f), fmaxf(v.z, 0.f), fmaxf(v.w, 0.f));
}

// Shared memory. The shim has its own, filled with NaN for every block.
#ifndef HM_SHIM
#define HM_SHARED(type, name, count) __shared__ __align__(32) type name[count]
#endif
