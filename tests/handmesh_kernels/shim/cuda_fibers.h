// Enough of CUDA to run the kernels of handmesh_kernels on a CPU, thread by thread.
//
// A thread of a block is a fiber, which runs until it meets a barrier or a shuffle. Shared memory is
// allocated on the heap in its exact size and filled with NaN for every block, so that AddressSanitizer
// sees what leaves it, and a value that nobody wrote is not a number. Threads run forwards or backwards
// (hm_shim_order); a barrier can be left out (hm_shim_skip), to see whether the tests notice.
//
// Fibers are begun by ucontext, whose every switch asks the system for the mask of signals. Where no
// AddressSanitizer has to be told, all but the first are jumps, which do not, and a fiber goes on with
// the next block when it is done with one.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define HM_SHIM 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct Index { unsigned x, y; };
static Index gridDim, blockDim, blockIdx, threadIdx;

struct alignas(16) float4 { float x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace shim {

enum State { READY, BARRIER, WARP, DONE };
static const size_t kStack = 256 << 10;

struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool begun = false;
  char* stack = nullptr;
  State state = DONE;
  unsigned shuffles = 0;
  void* fake = nullptr;  // AddressSanitizer's
};

struct Shared { const char* file; int line; char* memory; size_t bytes; };

static std::vector<Fiber> fibers;
static std::vector<Shared> shared;
static ucontext_t scheduler;
#if defined(__SANITIZE_ADDRESS__)
static void* scheduler_fake = nullptr;
static const void* scheduler_stack = nullptr;
static size_t scheduler_size = 0;
#else
static jmp_buf scheduler_place;
#endif
static unsigned current = 0;
static int order = 0;
static char skip_file[64] = "";
static int skip_line = 0;
static const char* failure = nullptr;
static void (*body)(const void*) = nullptr;
static const void* argument = nullptr;
static float slots[2][1024];

static void to_scheduler(bool done) {
  Fiber& f = fibers[current];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(done ? nullptr : &f.fake, scheduler_stack, scheduler_size);
  swapcontext(&f.context, &scheduler);
  __sanitizer_finish_switch_fiber(f.fake, &scheduler_stack, &scheduler_size);
#else
  (void)done;
  if (_setjmp(f.place) == 0) _longjmp(scheduler_place, 1);
#endif
}

static void entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
  for (;;) {
    body(argument);
    fibers[current].state = DONE;
    to_scheduler(true);
  }
}

static void resume(unsigned t) {
  current = t;
  threadIdx = {t, 0};
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake, fibers[t].stack, kStack);
  swapcontext(&scheduler, &fibers[t].context);
  __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#else
  if (_setjmp(scheduler_place) != 0) return;
  if (fibers[t].begun) _longjmp(fibers[t].place, 1);
  fibers[t].begun = true;
  setcontext(&fibers[t].context);
#endif
}

static void wait(State state) {
  fibers[current].state = state;
  to_scheduler(false);
}

static void barrier(const char* file, int line) {
  if (line == skip_line) {
    const char* name = strrchr(file, '/');
    if (strcmp(name ? name + 1 : file, skip_file) == 0) return;
  }
  wait(BARRIER);
}

static float shuffle_xor(float value, int mask) {
  Fiber& f = fibers[current];
  float* slot = slots[f.shuffles++ % 2];
  slot[current] = value;
  wait(WARP);
  return slot[current ^ mask];
}

template <typename T>
T* shared_memory(const char* file, int line, size_t count) {
  for (Shared& s : shared)
    if (s.line == line && s.file == file) return reinterpret_cast<T*>(s.memory);
  Shared s = {file, line, nullptr, count * sizeof(T)};
  void* memory = nullptr;
  if (posix_memalign(&memory, 32, s.bytes) != 0) abort();
  s.memory = static_cast<char*>(memory);
  memset(s.memory, 0xff, s.bytes);  // NaN as float and as half
  shared.push_back(s);
  return reinterpret_cast<T*>(s.memory);
}

static void run_block(unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& f = fibers[t];
    f.state = READY;
    f.shuffles = 0;
    f.fake = nullptr;
    if (f.begun) continue;
    f.context = scheduler;
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, entry, 0);
  }
  for (;;) {
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned t = order == 1 ? threads - 1 - i : i;
      if (fibers[t].state == READY) resume(t);
    }
    bool released = false;
    for (unsigned w = 0; w < threads; w += 32) {
      unsigned waiting = 0;
      for (unsigned t = w; t < w + 32 && t < threads; ++t) waiting += fibers[t].state == WARP;
      if (waiting == 32) {
        released = true;
        for (unsigned t = w; t < w + 32; ++t) fibers[t].state = READY;
      }
    }
    if (released) continue;
    unsigned done = 0, waiting = 0;
    for (unsigned t = 0; t < threads; ++t) {
      done += fibers[t].state == DONE;
      waiting += fibers[t].state == BARRIER;
    }
    if (done == threads) break;
    if (waiting != threads) {
      failure = "threads of a block do not meet at the same barriers";
      for (Fiber& f : fibers) f.begun = false;  // some are in the middle of it
      break;
    }
    for (unsigned t = 0; t < threads; ++t) fibers[t].state = READY;
  }
  for (Shared& s : shared) free(s.memory);
  shared.clear();
}

}  // namespace shim

#define __syncthreads() shim::barrier(__FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, step) shim::shuffle_xor(value, step)
#define HM_SHARED(type, name, count) \
  type* name = shim::shared_memory<type>(__FILE__, __LINE__, count)

extern "C" {
void hm_shim_order(int order) { shim::order = order; }
void hm_shim_skip(const char* file, int line) {
  snprintf(shim::skip_file, sizeof shim::skip_file, "%s", file);
  shim::skip_line = line;
}

// Run a kernel that takes one struct by value; null, or what went wrong.
const char* hm_shim_launch(void (*kernel)(const void*), const void* params, unsigned x, unsigned y,
                           unsigned threads) {
  if (shim::fibers.size() < 1024) {
    shim::fibers.resize(1024);
    for (shim::Fiber& f : shim::fibers) f.stack = static_cast<char*>(malloc(shim::kStack));
  }
  getcontext(&shim::scheduler);
  shim::failure = nullptr;
  shim::body = kernel;
  shim::argument = params;
  gridDim = {x, y};
  blockDim = {threads, 1};
  for (unsigned b = 0; b < x * y && !shim::failure; ++b) {
    const unsigned i = shim::order == 1 ? x * y - 1 - b : b;
    blockIdx = {i % x, i / x};
    shim::run_block(threads);
  }
  return shim::failure;
}
}
