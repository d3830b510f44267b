// The GPU's launches over the stages, and the functions Python calls. See raster.cpp.
//
// A picture's memory is one block; so many pictures are drawn at once as there are blocks. Each
// stage is one kernel over (what it is a function of, picture). Threads meet only in the depth
// buffers, where the larger value stays whoever comes first: the picture does not depend on order.

#include "stages.cpp"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define HM_LAUNCH(kernel, grid, block, stream, job) kernel<<<grid, block, 0, stream>>>(job)
#endif

namespace {

// What every kernel is given: the structs, with device pointers, and where the blocks are.
struct Job {
  HmMesh mesh;
  HmTextures skins, backgrounds;
  HmBatch batch;
  HmOutput out;
  uint8_t* memory;
  int64_t stride;  // bytes a block
  int first;       // picture of block 0
};

const int64_t kHeader = (sizeof(Scene) + 15) & ~(size_t)15;  // a block begins with its scene

HM_DEVICE uint8_t* block_of(const Job& job, int slot) { return job.memory + job.stride * slot; }

// The scene that `set_up` left; its pointers to structs lead to this kernel's own copies.
HM_DEVICE Scene scene_of(const Job& job, int slot) {
  Scene s = *(const Scene*)block_of(job, slot);
  s.mesh = &job.mesh;
  s.skins = &job.skins;
  s.backgrounds = &job.backgrounds;
  s.batch = &job.batch;
  return s;
}

HM_DEVICE int thread_in_grid() { return blockIdx.x * blockDim.x + threadIdx.x; }

// One block of threads a picture: the first prepares the scene, all fill tables.
__global__ void set_up(const __grid_constant__ Job job) {
  Scene s;
  s.mesh = &job.mesh;
  s.skins = &job.skins;
  s.backgrounds = &job.backgrounds;
  s.batch = &job.batch;
  s.item = job.first + blockIdx.y;
  lay_out(job.mesh, job.batch, block_of(job, blockIdx.y) + kHeader, &s);
  fill_tables(s, threadIdx.x, blockDim.x);
  if (threadIdx.x != 0) return;
  prepare(&s);
  *(Scene*)block_of(job, blockIdx.y) = s;
}

__global__ void clear(const __grid_constant__ Job job) {
  clear_buffers(scene_of(job, blockIdx.y), thread_in_grid(), gridDim.x * blockDim.x);
}

__global__ void find_normals(const __grid_constant__ Job job) {
  const int face = thread_in_grid();
  if (face < job.mesh.face_count) face_normal(scene_of(job, blockIdx.y), face);
}

__global__ void shade_vertices(const __grid_constant__ Job job) {
  const int vertex = thread_in_grid();
  if (vertex < job.mesh.vertex_count) shade_vertex(scene_of(job, blockIdx.y), vertex);
}

__global__ void draw_faces(const __grid_constant__ Job job) {
  const int face = thread_in_grid();
  if (face >= job.mesh.face_count) return;
  const Scene s = scene_of(job, blockIdx.y);
  draw_visible(s, face);
  draw_shadow(s, face);
}

// One block of threads a solid.
__global__ void draw_solids(const __grid_constant__ Job job) {
  const Scene s = scene_of(job, blockIdx.y);
  const Lane lane = {(int)threadIdx.x, (int)threadIdx.y, (int)blockDim.x, (int)blockDim.y};
  draw_solid(s, blockIdx.x, lane);
  draw_solid_shadow(s, blockIdx.x, lane);
}

const int kTile = 16;  // pixels a block of threads is wide, half as many high

__global__ void __launch_bounds__(kTile * kTile / 2) shade_pixels(const __grid_constant__ Job job) {
  const int tiles = (job.batch.size + kTile - 1) / kTile;
  const int x = blockIdx.x % tiles * blockDim.x + threadIdx.x;
  const int y = blockIdx.x / tiles * blockDim.y + threadIdx.y;
  if (x < job.batch.size && y < job.batch.size) {
    shade_pixel(scene_of(job, blockIdx.y), job.out, x, y);
  }
}

int groups(int count, int size) { return (count + size - 1) / size; }

}  // namespace

extern "C" {

// Sizes of the structs, so that the Python side can check that it mirrors them.
void hm_struct_sizes(int32_t* out) {
  out[0] = (int32_t)sizeof(HmMesh);
  out[1] = (int32_t)sizeof(HmTextures);
  out[2] = (int32_t)sizeof(HmBatch);
  out[3] = (int32_t)sizeof(HmOutput);
}

// Bytes of memory that drawing one picture takes.
int64_t hm_device_stride(const HmMesh* mesh, const HmBatch* batch) {
  Scene s;
  return kHeader + lay_out(*mesh, *batch, nullptr, &s);
}

// Draws the batch; returns at once, as the stream does the work.
// The structs lie in the host's memory, what they point to, and `memory`, in the device's.
// Returns 0, or CUDA's error code.
int32_t hm_device_render(const HmMesh* mesh, const HmTextures* skins,
                         const HmTextures* backgrounds, const HmBatch* batch, const HmOutput* out,
                         uint8_t* memory, int64_t bytes, int32_t device, cudaStream_t stream) {
  cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) return (int32_t)status;
  Job job = {*mesh, *skins, *backgrounds, *batch, *out, memory, hm_device_stride(mesh, batch), 0};
  const int64_t fit = bytes / job.stride;
  const int capacity = fit > 65535 ? 65535 : (int)fit;  // CUDA's limit of a grid's y
  if (capacity < 1) return (int32_t)cudaErrorInvalidValue;
  for (; job.first < batch->count; job.first += capacity) {
    const int left = batch->count - job.first, count = left < capacity ? left : capacity;
    const int faces = groups(mesh->face_count, 128), side = batch->size;
    HM_LAUNCH(set_up, dim3(1, count), dim3(128), stream, job);
    HM_LAUNCH(clear, dim3(groups(kSuper * kSuper * side * side, 1024), count), dim3(256), stream, job);
    HM_LAUNCH(find_normals, dim3(faces, count), dim3(128), stream, job);
    HM_LAUNCH(shade_vertices, dim3(groups(mesh->vertex_count, 128), count), dim3(128), stream, job);
    HM_LAUNCH(draw_faces, dim3(faces, count), dim3(128), stream, job);
    HM_LAUNCH(draw_solids, dim3(kSolids, count), dim3(32, 8), stream, job);
    HM_LAUNCH(shade_pixels, dim3(groups(side, kTile) * groups(side, kTile / 2), count),
              dim3(kTile, kTile / 2), stream, job);
    status = cudaGetLastError();
    if (status != cudaSuccess) return (int32_t)status;
  }
  return 0;
}

const char* hm_device_error(int32_t status) { return cudaGetErrorString((cudaError_t)status); }

}  // extern "C"
