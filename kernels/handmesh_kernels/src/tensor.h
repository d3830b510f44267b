// Variants of expand, conv1 and conv2 whose matrix products run on the tensor cores: half in, float
// sums, compute capability 7.0 and newer. What they change: activations are rounded to half in shared
// memory (decoder.cu multiplies them as float), and a warp multiplies 16 x 16 x 16 at a time. conv3's
// product is 12 columns wide, and stays scalar.
//
// The instructions are PTX's wmma: mma.h would need the toolkit's headers, which NVRTC has not.
#pragma once

#include "gather.h"

#ifndef HM_TENSOR_CORES
#define HM_TENSOR_CORES 1  // 0 where their tiles do not fit shared memory
#endif

#if HM_TENSOR_CORES && HM_HALF && HM_WIDTH0 % 16 == 0 && HM_WIDTH1 % 16 == 0 && HM_WIDTH2 % 16 == 0 && HM_WIDTH3 % 16 == 0
#if defined(HM_SHIM) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 700)
#define HM_TENSOR 1
#endif
#endif

#ifdef HM_TENSOR
#ifndef HM_SHIM
// Parts of 16 x 16 matrices that a thread of a warp holds; which ones is the hardware's affair.
struct Left { unsigned r[8]; };
struct Right { unsigned r[8]; };
struct Sums { float r[8]; };

#define HM_OUT8(f) "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3]), "=r"(f.r[4]), \
                   "=r"(f.r[5]), "=r"(f.r[6]), "=r"(f.r[7])
#define HM_IN8(c, f) c(f.r[0]), c(f.r[1]), c(f.r[2]), c(f.r[3]), c(f.r[4]), c(f.r[5]), c(f.r[6]), c(f.r[7])

// A row-major tile; addresses are multiples of 32 bytes, strides of 16 bytes.
__device__ __forceinline__ void load_left(Left& a, const Stored* from, int stride) {
  asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.f16 {%0,%1,%2,%3,%4,%5,%6,%7}, [%8], %9;"
               : HM_OUT8(a) : "l"(from), "r"(stride) : "memory");
}
__device__ __forceinline__ void load_right(Right& b, const Stored* from, int stride) {
  asm volatile("wmma.load.b.sync.aligned.row.m16n16k16.f16 {%0,%1,%2,%3,%4,%5,%6,%7}, [%8], %9;"
               : HM_OUT8(b) : "l"(from), "r"(stride) : "memory");
}
__device__ __forceinline__ void multiply_add(Sums& d, const Left& a, const Right& b) {
  asm volatile(
      "wmma.mma.sync.aligned.row.row.m16n16k16.f32.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, "
      "{%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19,%20,%21,%22,%23}, {%0,%1,%2,%3,%4,%5,%6,%7};"
      : "+f"(d.r[0]), "+f"(d.r[1]), "+f"(d.r[2]), "+f"(d.r[3]), "+f"(d.r[4]), "+f"(d.r[5]),
        "+f"(d.r[6]), "+f"(d.r[7])
      : HM_IN8("r", a), HM_IN8("r", b));
}
__device__ __forceinline__ void store_sums(float* to, const Sums& d, int stride) {
  asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.f32 [%0], {%1,%2,%3,%4,%5,%6,%7,%8}, %9;"
               : : "l"(to), HM_IN8("f", d), "r"(stride) : "memory");
}
__device__ __forceinline__ void clear(Sums& d) {
#pragma unroll
  for (int i = 0; i < 8; ++i) d.r[i] = 0.f;
}
#endif

// out (ROWS, M) = x (ROWS, C) theta (C, M), both of x and out in shared memory, by WARPS warps.
template <int ROWS, int C, int M, int WARPS>
__device__ __forceinline__ void multiply(const Stored* x, int stride, const Stored* theta, float* out) {
  constexpr int ACROSS = M / 16;
  for (int tile = threadIdx.x / 32; tile < ROWS / 16 * ACROSS; tile += WARPS) {
    const int row = tile / ACROSS * 16, column = tile % ACROSS * 16;
    Sums sums;
    clear(sums);
#pragma unroll
    for (int c = 0; c < C; c += 16) {
      Left a;
      Right b;
      load_left(a, x + row * stride + c, stride);
      load_right(b, theta + c * M + column, M);
      multiply_add(sums, a, b);
    }
    store_sums(out + row * M + column, sums, M);
  }
}

// As `expand` of decoder.cu, for 16 samples a block.
extern "C" __global__ void __launch_bounds__(HM_WIDE_THREADS) hm_expand_tensor(const HeadParams p) {
  constexpr int S = 16, C = HM_WIDTH0, M = HM_ORDER * HM_WIDTH1, WARPS = HM_WIDE_THREADS / 32;
  constexpr int ACROSS = C / 16, SPLITS = WARPS / ACROSS < 1 ? 1 : WARPS / ACROSS;
  constexpr int LONG = HM_LATENT + 8, WIDE = C + 8;  // strides in other banks for each row
  HM_SHARED(Stored, latent, S * LONG);
  HM_SHARED(float, sums, (SPLITS * C > M ? SPLITS * C : M) * S);  // [split][s][c], later [s][column]
  HM_SHARED(Stored, x, S * WIDE);
  const int node = blockIdx.x, first = blockIdx.y * S, thread = threadIdx.x;

  for (int i = thread; i < p.features * S; i += HM_WIDE_THREADS) {
    const int s = i / p.features, f = i % p.features;
    const bool there = first + s < p.batch && f < p.given;
    latent[s * LONG + f] = narrow(there ? p.latent[(first + s) * p.given + f] : 0.f);
  }
  __syncthreads();

  // A warp: 16 channels and every SPLITS-th 16 features.
  const Stored* weight = p.expand_weight + node * p.features * C;
  for (int tile = thread / 32; tile < ACROSS * SPLITS; tile += WARPS) {
    const int column = tile % ACROSS * 16, split = tile / ACROSS;
    Sums sum;
    clear(sum);
    for (int f = split * 16; f < p.features; f += SPLITS * 16) {
      Left a;
      Right b;
      load_left(a, latent + f, LONG);
      load_right(b, weight + f * C + column, C);
      multiply_add(sum, a, b);
    }
    store_sums(sums + split * S * C + column, sum, C);
  }
  __syncthreads();

  for (int i = thread; i < S * C; i += HM_WIDE_THREADS) {
    float total = p.expand_bias[node * C + i % C];
    for (int k = 0; k < SPLITS; ++k) total += sums[k * S * C + i];
    x[i / C * WIDE + i % C] = narrow(total);
  }
  __syncthreads();

  multiply<S, C, M, WARPS>(x, WIDE, p.theta1, sums);
  __syncthreads();

  for (int i = thread; i < S * M; i += HM_WIDE_THREADS) {
    const int sample = first + i / M;
    if (sample < p.batch) p.maps1[(sample * p.nodes + node) * M + i % M] = narrow(sums[i]);
  }
}

// As `convolve` of decoder.cu.
template <int C, int M, int ROWS>
__device__ __forceinline__ void convolve_tensor(
    const Gather& g, const Stored* theta, const Stored* maps, Stored* out) {
  constexpr int STRIDE = C + 8, QUADS = C / 4;
  HM_SHARED(Stored, x, ROWS * STRIDE);
  HM_SHARED(float, sums, ROWS * M);
  const int sample = blockIdx.y, first = blockIdx.x * ROWS, thread = threadIdx.x;
  maps += sample * g.inputs * C;
  out += sample * g.rows * M;

  const int channel = thread % QUADS * 4;
  for (int r = thread / QUADS; r < ROWS; r += HM_THREADS / QUADS) {
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (first + r < g.rows) v = gathered<C>(g, maps, first + r, channel);
    Stored* to = x + r * STRIDE + channel;
    to[0] = narrow(v.x);
    to[1] = narrow(v.y);
    to[2] = narrow(v.z);
    to[3] = narrow(v.w);
  }
  __syncthreads();

  multiply<ROWS, C, M, HM_THREADS / 32>(x, STRIDE, theta, sums);
  __syncthreads();

  for (int i = thread; i < ROWS * M; i += HM_THREADS) {
    if (first + i / M < g.rows) out[first * M + i] = narrow(sums[i]);
  }
}

extern "C" __global__ void __launch_bounds__(HM_THREADS) hm_conv1_tensor(const HeadParams p) {
  convolve_tensor<HM_WIDTH1, HM_ORDER * HM_WIDTH2, 32>(p.conv1, p.theta2, p.maps1, p.maps2);
}
extern "C" __global__ void __launch_bounds__(HM_THREADS) hm_conv2_tensor(const HeadParams p) {
  convolve_tensor<HM_WIDTH2, HM_ORDER * HM_WIDTH3, 32>(p.conv2, p.theta3, p.maps2, p.maps3);
}
#endif  // HM_TENSOR
