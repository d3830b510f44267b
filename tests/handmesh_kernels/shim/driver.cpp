// As much of CUDA's driver, libcuda.so.1, as PyCUDA needs to run the kernels, on the CPU.
//
// It is stricter than a GPU has to be: calls without a current context are refused, and what is put
// on a stream waits until somebody synchronises, so that a copy from memory that was changed or freed
// in between shows. The test adds the functions that are missing here; those refuse.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace {
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_FOUND = 500, FAILED = 719 };
const int CONTEXT = 42;
thread_local std::vector<int> contexts;
typedef std::vector<std::function<int()>> Queue;
std::map<Queue*, bool> streams;

struct Kernel {
  void (*run)(const void*);
};

void* kernels() {
  static void* library = dlopen(getenv("HM_KERNELS"), RTLD_NOW);  // null: there is no GPU
  return library;
}

bool current() { return !contexts.empty(); }

int drain(Queue* queue) {
  for (auto& work : *queue) {
    const int status = work();
    if (status != OK) return status;
  }
  queue->clear();
  return OK;
}
}  // namespace

extern "C" {
int cuInit(unsigned) { return kernels() ? OK : NO_DEVICE; }
int cuDriverGetVersion(int* version) { return *version = 12060, OK; }
int cuDeviceGetCount(int* count) { return *count = 1, OK; }
int cuDeviceGet(int* device, int number) { return *device = number, number == 0 ? OK : 101; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "CPU"), OK; }
int cuDeviceComputeCapability(int* major, int* minor, int) { return *major = 9, *minor = 0, OK; }
int cuDevicePrimaryCtxRetain(const int** context, int) { return *context = &CONTEXT, OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxPushCurrent_v2(const int* context) { return contexts.push_back(*context), OK; }
int cuCtxPopCurrent_v2(const int** context) {
  if (!current()) return INVALID_CONTEXT;
  contexts.pop_back();
  return *context = &CONTEXT, OK;
}
int cuGetErrorString(int status, const char** text) {
  static thread_local char message[64];
  snprintf(message, sizeof message, "status %d of the driver's stand-in", status);
  return *text = message, OK;
}

int cuMemAlloc_v2(uint64_t* address, size_t size) {
  if (!current()) return INVALID_CONTEXT;
  if (size == 0) return INVALID_VALUE;
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, size) != 0) return OUT_OF_MEMORY;
  memset(memory, 0xFF, size);
  return *address = reinterpret_cast<uint64_t>(memory), OK;
}
int cuMemFree_v2(uint64_t address) {
  if (!current()) return INVALID_CONTEXT;
  for (auto& each : streams) drain(each.first);  // as CUDA, it waits for what is under way
  free(reinterpret_cast<void*>(address));
  return OK;
}

int cuStreamCreate(Queue** stream, unsigned flags) {
  if (!current()) return INVALID_CONTEXT;
  if (flags != 1) return INVALID_VALUE;  // the launcher's do not wait for the default stream
  *stream = new Queue;
  streams[*stream] = true;
  return OK;
}
int cuStreamSynchronize(Queue* stream) { return current() ? drain(stream) : INVALID_CONTEXT; }
int cuStreamDestroy_v2(Queue* stream) {
  if (!current()) return INVALID_CONTEXT;
  drain(stream);
  streams.erase(stream);
  delete stream;
  return OK;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t size, Queue* stream) {
  if (!current() || stream == nullptr) return INVALID_CONTEXT;
  stream->push_back([=] { return memcpy(reinterpret_cast<void*>(to), from, size), OK; });
  return OK;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t size, Queue* stream) {
  if (!current() || stream == nullptr) return INVALID_CONTEXT;
  stream->push_back([=] { return memcpy(to, reinterpret_cast<void*>(from), size), OK; });
  return OK;
}

int cuModuleLoadDataEx(void** module, const void* code, unsigned, void*, void*) {
  if (!current()) return INVALID_CONTEXT;
  if (strncmp(static_cast<const char*>(code), "code", 4) != 0) return INVALID_VALUE;
  return *module = kernels(), OK;
}
int cuModuleUnload(void*) { return current() ? OK : INVALID_CONTEXT; }
int cuModuleGetFunction(Kernel** function, void* module, const char* name) {
  if (!current()) return INVALID_CONTEXT;
  const std::string wrapper = std::string("hm_run_") + (name + strlen("hm_"));
  void* found = dlsym(module, wrapper.c_str());
  if (!found) return NOT_FOUND;
  *function = new Kernel{reinterpret_cast<void (*)(const void*)>(found)};
  return OK;
}
int cuFuncSetBlockShape(Kernel*, int, int, int) { return OK; }

int cuLaunchKernel(Kernel* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                   unsigned tz, unsigned shared, Queue* stream, void** params, void** extra) {
  if (!current() || stream == nullptr) return INVALID_CONTEXT;
  if (z != 1 || ty != 1 || tz != 1 || shared != 0 || params != nullptr) return INVALID_VALUE;
  // extra is: 1, the arguments; 2, how many bytes; 0
  const char* given = static_cast<const char*>(extra[1]);
  const size_t size = *static_cast<size_t*>(extra[3]);
  auto wanted = reinterpret_cast<int64_t (*)(int)>(dlsym(kernels(), "hm_params_size"));
  if (extra[0] != reinterpret_cast<void*>(1) || extra[2] != reinterpret_cast<void*>(2) ||
      size != size_t(wanted(0)))
    return INVALID_VALUE;
  auto launch = reinterpret_cast<const char* (*)(void (*)(const void*), const void*, unsigned, unsigned,
                                                 unsigned)>(dlsym(kernels(), "hm_shim_launch"));
  const std::string bytes(given, size);  // a launch copies its arguments
  stream->push_back([=] { return launch(function->run, bytes.data(), x, y, threads) ? FAILED : OK; });
  return OK;
}
}
