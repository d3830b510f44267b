// Enough of CUDA to run device.cu on a CPU: each launch is a loop over its blocks and threads.
//
// No kernel has a barrier or shared memory, so threads can run one after the other, in any order:
// forwards, backwards, or strewn (hm_shim_order).
#pragma once

#include <cstdint>
#include <cstdlib>

#define __global__
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

typedef void* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline const char* cudaGetErrorString(cudaError_t) { return "invalid argument"; }

static int shim_order = 0;
static int64_t shim_launches = 0;
extern "C" void hm_shim_order(int order) { shim_order = order; }
extern "C" int64_t hm_shim_launches() { return shim_launches; }

template <typename Kernel, typename Job>
static void shim_launch(Kernel kernel, dim3 grid, dim3 block, const Job& job) {
  ++shim_launches;
  gridDim = grid;
  blockDim = block;
  const int64_t per_block = (int64_t)block.x * block.y * block.z;
  const int64_t count = per_block * grid.x * grid.y * grid.z;
  int64_t step = 1;
  if (shim_order == 2) {  // a step without a common divisor visits all
    for (step = 7919; count % step == 0;) step += 2;
    for (int64_t a = step, b = count; b; ) {
      const int64_t r = a % b;
      a = b;
      b = r;
      if (b == 0 && a != 1) { step += 2; a = step; b = count; }
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    int64_t i = shim_order == 1 ? count - 1 - k : (k * step) % count;
    const int64_t t = i % per_block, b = i / per_block;
    threadIdx = dim3(t % block.x, t / block.x % block.y, t / (block.x * block.y));
    blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / ((int64_t)grid.x * grid.y));
    kernel(job);
  }
}
#define HM_LAUNCH(kernel, grid, block, stream, job) shim_launch(kernel, grid, block, job)
