// The graph head in five launches: latent vector to vertices and joints.
//
// What it changes, against reference.cu, one step at a time:
//
// 1. The polynomials T_k(L) are constants, so they are multiplied out on the host. No recurrence is
//    left, and no launch waits for another one within a convolution.
// 2. theta comes first: (T_k x) theta_k = T_k (x theta_k). Then the gather moves C_out channels
//    in place of C_in, which in this network is never more.
// 3. Unpooling is a copy, T_k U x, and U is folded into the sparse rows: theta acts on a quarter of
//    the nodes, and children that share a parent share an entry.
// 4. Each kernel gathers its own convolution, adds the bias, cuts off below 0, and at once multiplies
//    by the theta of the *next* convolution, while the rows are still in shared memory. In memory
//    there are only the maps x theta_k.
// 5. Whatever is linear at the end, vertices' order, anchors, pose regressor, wrist depth, is one
//    launch. Its blocks each compute all vertices of their samples rather than wait for each other.
//
//    launch      reads             computes                                  writes
//    expand      latent            fully connected, x theta1                 maps1 on 80 nodes
//    conv1       maps1             gather, bias, relu, x theta2              maps2 on 291 nodes
//    conv2       maps2             gather, bias, relu, x theta3              maps3 on 291 nodes
//    conv3       maps3             gather, bias, relu, x theta4              maps4 on 1036 nodes
//    finish      maps4, joints_uv  gather, anchors, pose, wrist depth        vertices, joints
//
// tensor.h has variants of the first three for the tensor cores.
#include "gather.h"

#define HM_THREADS 128         // of a block of conv1, conv2, conv3
#define HM_WIDE_THREADS 256    // of a block of expand, finish
#define HM_POSE_ROWS 64        // 21 joints * 3, then the wrist's depth

// Step 1 of the head, one coarse node and S samples a block: x = W latent + b, then x theta1.
//
// The weights are most of the bytes that the head reads; each is read once for S samples.
template <int S>
__device__ __forceinline__ void expand(const HeadParams& p) {
  constexpr int C = HM_WIDTH0, M = HM_ORDER * HM_WIDTH1;
  constexpr int QUADS = C / 4;                              // threads across a node's channels
  constexpr int PER = S < 4 ? S : 4;                        // samples a thread
  constexpr int SPLITS = HM_WIDE_THREADS / QUADS * PER / S;  // threads along the latent features
  static_assert(SPLITS >= 1 && C % 4 == 0, "channels must be a multiple of 4, at most 512");
  constexpr int LATENT = HM_LATENT * S, PARTIAL = SPLITS * C * S;
  HM_SHARED(float, scratch, (LATENT > PARTIAL ? LATENT : PARTIAL));  // [f][s], later [split][c][s]
  HM_SHARED(float, x, C * S);                                        // [c][s]
  const int node = blockIdx.x, first = blockIdx.y * S, thread = threadIdx.x;

  // Latent vectors to shared memory; zeros behind the last feature and the last sample.
  for (int i = thread; i < p.features * S; i += HM_WIDE_THREADS) {
    const int s = i / p.features, f = i % p.features;
    const bool there = first + s < p.batch && f < p.given;
    scratch[f * S + s] = there ? p.latent[(first + s) * p.given + f] : 0.f;
  }
  __syncthreads();

  // Each thread: four channels, PER samples, every SPLITS-th feature.
  const int quad = thread % QUADS, split = thread / QUADS % SPLITS;
  const int samples = thread / (QUADS * SPLITS) * PER;
  const bool busy = samples < S;
  float4 sum[PER];
#pragma unroll
  for (int s = 0; s < PER; ++s) sum[s] = make_float4(0.f, 0.f, 0.f, 0.f);
  if (busy) {
    const Stored* weight = p.expand_weight + node * p.features * C + quad * 4;
#pragma unroll 4
    for (int f = split; f < p.features; f += SPLITS) {
      const float4 w = load4(weight + f * C);
#pragma unroll
      for (int s = 0; s < PER; ++s) sum[s] = add_scaled(sum[s], scratch[f * S + samples + s], w);
    }
  }
  __syncthreads();  // the latent vectors were read by all: their place is free

  if (busy) {
#pragma unroll
    for (int s = 0; s < PER; ++s) {
      float* to = scratch + (split * C + quad * 4) * S + samples + s;
      to[0] = sum[s].x;
      to[S] = sum[s].y;
      to[2 * S] = sum[s].z;
      to[3 * S] = sum[s].w;
    }
  }
  __syncthreads();

  // Sum of the splits, in a fixed order: the same bits in every run.
  for (int i = thread; i < C * S; i += HM_WIDE_THREADS) {
    float total = p.expand_bias[node * C + i / S];
    for (int k = 0; k < SPLITS; ++k) total += scratch[k * C * S + i];
    x[i] = total;
  }
  __syncthreads();

  // x theta1: a thread a column, all samples.
  for (int column = thread; column < M; column += HM_WIDE_THREADS) {
    float y[S];
#pragma unroll
    for (int s = 0; s < S; ++s) y[s] = 0.f;
#pragma unroll 8
    for (int c = 0; c < C; ++c) {
      const float t = widen(p.theta1[c * M + column]);
#pragma unroll
      for (int s = 0; s < S; ++s) y[s] += x[c * S + s] * t;
    }
#pragma unroll
    for (int s = 0; s < S; ++s) {
      if (first + s < p.batch) p.maps1[((first + s) * p.nodes + node) * M + column] = narrow(y[s]);
    }
  }
}

// A hidden convolution of C channels for ROWS nodes of one sample, and x theta of the next, M wide.
template <int C, int M, int ROWS>
__device__ __forceinline__ void convolve(
    const Gather& g, const Stored* theta, const Stored* maps, Stored* out) {
  constexpr int STRIDE = C + 4;  // rows of x begin in different banks
  HM_SHARED(float, x, ROWS * STRIDE);
  const int sample = blockIdx.y, first = blockIdx.x * ROWS, thread = threadIdx.x;
  maps += sample * g.inputs * C;
  out += sample * g.rows * M;

  // Gather, bias, relu: four channels of a row a thread.
  constexpr int QUADS = C / 4;
  static_assert(C % 4 == 0 && HM_THREADS % QUADS == 0, "channels must be 4 times a power of two");
  const int channel = thread % QUADS * 4;
  for (int r = thread / QUADS; r < ROWS; r += HM_THREADS / QUADS) {
    if (first + r < g.rows) store4(x + r * STRIDE + channel, gathered<C>(g, maps, first + r, channel));
  }
  __syncthreads();

  // x theta: a group of threads takes PER rows and all columns. theta is read coalesced, and from
  // the L1 cache by all groups but the first; a row of x is the same address for the whole group.
  constexpr int LANES = M >= 32 ? 32 : 16, GROUPS = HM_THREADS / LANES;
  constexpr int PER = ROWS / GROUPS, COLUMNS = (M + LANES - 1) / LANES;
  static_assert(ROWS % GROUPS == 0, "rows of a block must be a multiple of its groups");
  const int lane = thread % LANES, start = thread / LANES * PER;
  float y[PER][COLUMNS];
#pragma unroll
  for (int r = 0; r < PER; ++r)
#pragma unroll
    for (int m = 0; m < COLUMNS; ++m) y[r][m] = 0.f;
#pragma unroll 2
  for (int c = 0; c < C; c += 4) {
    float t[4][COLUMNS];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int m = 0; m < COLUMNS; ++m) {
        const int column = lane + m * LANES;
        t[i][m] = column < M ? widen(theta[(c + i) * M + column]) : 0.f;
      }
#pragma unroll
    for (int r = 0; r < PER; ++r) {
      // Rows behind the last node hold whatever was there; they are not written out.
      const float4 v = load4(x + (start + r) * STRIDE + c);
#pragma unroll
      for (int m = 0; m < COLUMNS; ++m) {
        y[r][m] += v.x * t[0][m];
        y[r][m] += v.y * t[1][m];
        y[r][m] += v.z * t[2][m];
        y[r][m] += v.w * t[3][m];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < PER; ++r) {
    const int row = first + start + r;
#pragma unroll
    for (int m = 0; m < COLUMNS; ++m) {
      const int column = lane + m * LANES;
      if (row < g.rows && column < M) out[row * M + column] = narrow(y[r][m]);
    }
  }
}

// The end of the head for S samples. gridDim.x blocks share the joints and the writing of vertices;
// each computes all vertices, which is cheaper than another launch.
template <int S>
__device__ __forceinline__ void finish(const HeadParams& p) {
  HM_SHARED(float, points, S * 3 * HM_VERTICES);  // [s][vertex][u, v, d]
  HM_SHARED(float, anchors, S * HM_JOINTS * 2);   // [s][joint][u, v]
  HM_SHARED(float, wrist, S);
  const Gather& g = p.conv4;
  const int first = blockIdx.y * S, thread = threadIdx.x, part = blockIdx.x, parts = gridDim.x;

  for (int i = thread; i < S * HM_JOINTS * 2; i += HM_WIDE_THREADS) {
    const bool there = p.joints_uv != nullptr && first * HM_JOINTS * 2 + i < p.batch * HM_JOINTS * 2;
    anchors[i] = there ? p.joints_uv[first * HM_JOINTS * 2 + i] : 0.f;
  }
  __syncthreads();

  // Gather and anchors, a thread a vertex. Entries lie side by side for neighbouring vertices.
  const float4 bias = load4(g.bias);
  for (int v = thread; v < g.rows; v += HM_WIDE_THREADS) {
    float4 sum[S];
#pragma unroll
    for (int s = 0; s < S; ++s) sum[s] = bias;
    const int length = g.lengths[v];
    for (int e = 0; e < length; ++e) {
      const Entry entry = g.entries[e * g.rows + v];
#pragma unroll
      for (int s = 0; s < S; ++s) {
        // Behind the last sample the first one is read again, and not written out.
        const int sample = first + s < p.batch ? first + s : first;
        const Stored* map = p.maps4 + (sample * g.inputs + entry.column) * 4;
        sum[s] = add_scaled(sum[s], entry.value, load4(map));
      }
    }
    if (p.joints_uv != nullptr) {
#pragma unroll 3
      for (int j = 0; j < HM_JOINTS; ++j) {
        const float share = p.blend[j * g.rows + v];
#pragma unroll
        for (int s = 0; s < S; ++s) {
          sum[s].x += share * anchors[(s * HM_JOINTS + j) * 2];
          sum[s].y += share * anchors[(s * HM_JOINTS + j) * 2 + 1];
        }
      }
    }
#pragma unroll
    for (int s = 0; s < S; ++s) {
      float* point = points + s * 3 * HM_VERTICES + 3 * v;
      point[0] = sum[s].x;
      point[1] = sum[s].y;
      point[2] = sum[s].z;
    }
  }
  // Where 3 V is no multiple of 4: the rest meets zeros of the pose map, and must be finite.
  for (int i = 3 * g.rows + thread; i < p.points; i += HM_WIDE_THREADS) {
#pragma unroll
    for (int s = 0; s < S; ++s) points[s * 3 * HM_VERTICES + i] = 0.f;
  }
  __syncthreads();

  // Rows of the pose map, a warp a row: first, in every block, the wrist's depth, then this block's
  // share of the joints.
  const int warp = thread / 32, lane = thread % 32;
  for (int slot = warp;; slot += HM_WIDE_THREADS / 32) {
    const int row = slot == 0 ? HM_POSE_ROWS - 1 : part + (slot - 1) * parts;
    if (slot > 0 && row >= HM_POSE_ROWS - 1) break;
    float sum[S];
#pragma unroll
    for (int s = 0; s < S; ++s) sum[s] = 0.f;
#pragma unroll 4
    for (int i = lane * 4; i < p.points; i += 128) {
      const float4 w = load4(p.pose_weight + row * p.points + i);
#pragma unroll
      for (int s = 0; s < S; ++s) {
        const float4 q = load4(points + s * 3 * HM_VERTICES + i);
        sum[s] += w.x * q.x + w.y * q.y + w.z * q.z + w.w * q.w;
      }
    }
#pragma unroll
    for (int s = 0; s < S; ++s) {
      for (int step = 16; step > 0; step /= 2) sum[s] += __shfl_xor_sync(0xffffffffu, sum[s], step);
      const float result = sum[s] + p.pose_bias[row];
      if (lane == 0 && slot == 0) wrist[s] = result;
      if (lane == 0 && slot > 0 && first + s < p.batch)
        p.joints[(first + s) * (HM_POSE_ROWS - 1) + row] = result;
    }
  }
  __syncthreads();

  // This block's share of the vertices, depths from the wrist.
  const int count = 3 * g.rows;
  for (int i = part * HM_WIDE_THREADS + thread; i < count; i += parts * HM_WIDE_THREADS) {
#pragma unroll
    for (int s = 0; s < S; ++s) {
      const float depth = i % 3 == 2 ? wrist[s] : 0.f;
      if (first + s < p.batch)
        p.vertices[(first + s) * count + i] = points[s * 3 * HM_VERTICES + i] - depth;
    }
  }
}

// Grid: (coarse nodes, samples / S).
#define HM_EXPAND(S)                                                                              \
  extern "C" __global__ void __launch_bounds__(HM_WIDE_THREADS) hm_expand_##S(const HeadParams p) { \
    expand<S>(p);                                                                                 \
  }
HM_EXPAND(1)
HM_EXPAND(4)
HM_EXPAND(8)

// Grid: (rows / ROWS, samples).
#define HM_CONVOLVE(ROWS)                                                                        \
  extern "C" __global__ void __launch_bounds__(HM_THREADS) hm_conv1_##ROWS(const HeadParams p) { \
    convolve<HM_WIDTH1, HM_ORDER * HM_WIDTH2, ROWS>(p.conv1, p.theta2, p.maps1, p.maps2);         \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(HM_THREADS) hm_conv2_##ROWS(const HeadParams p) { \
    convolve<HM_WIDTH2, HM_ORDER * HM_WIDTH3, ROWS>(p.conv2, p.theta3, p.maps2, p.maps3);         \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(HM_THREADS) hm_conv3_##ROWS(const HeadParams p) { \
    convolve<HM_WIDTH3, HM_ORDER * 4, ROWS>(p.conv3, p.theta4, p.maps3, p.maps4);                 \
  }
HM_CONVOLVE(8)
HM_CONVOLVE(32)

// Grid: (blocks that share a sample, samples / S). One block a multiprocessor is enough: without the 1
// the assembler of CUDA 13 spills for Thor, to fit more.
#define HM_FINISH(S)                                                                              \
  extern "C" __global__ void __launch_bounds__(HM_WIDE_THREADS, 1) hm_finish_##S(const HeadParams p) { \
    finish<S>(p);                                                                                 \
  }
HM_FINISH(1)
HM_FINISH(2)

#include "tensor.h"
