// The CPU's loops over the stages, and the functions Python calls.

#include "stages.cpp"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace {

void render_one(Scene* s, const HmOutput& out) {
  prepare(s);
  fill_tables(*s, 0, 1);
  clear_buffers(*s, 0, 1);
  const Lane all = {0, 0, 1, 1};
  for (int f = 0; f < s->mesh->face_count; ++f) face_normal(*s, f);
  for (int v = 0; v < s->mesh->vertex_count; ++v) shade_vertex(*s, v);
  for (int f = 0; f < s->mesh->face_count; ++f) draw_visible(*s, f);
  for (int f = 0; f < s->mesh->face_count; ++f) draw_shadow(*s, f);
  for (int i = 0; i < kSolids; ++i) draw_solid(*s, i, all);
  for (int i = 0; i < kSolids; ++i) draw_solid_shadow(*s, i, all);
  for (int y = 0; y < s->batch->size; ++y) {
    for (int x = 0; x < s->batch->size; ++x) shade_pixel(*s, out, x, y);
  }
}

}  // namespace

extern "C" {

// Sizes of the structs, so that the Python side can check that it mirrors them.
void hm_struct_sizes(int32_t* out) {
  out[0] = (int32_t)sizeof(HmMesh);
  out[1] = (int32_t)sizeof(HmTextures);
  out[2] = (int32_t)sizeof(HmBatch);
  out[3] = (int32_t)sizeof(HmOutput);
}

void hm_render(const HmMesh* mesh, const HmTextures* skins, const HmTextures* backgrounds,
               const HmBatch* batch, const HmOutput* out, int32_t threads) {
  std::atomic<int> next(0);
  auto work = [&]() {
    Scene s;
    s.mesh = mesh;
    s.skins = skins;
    s.backgrounds = backgrounds;
    s.batch = batch;
    // 64-bit words, so that the memory is aligned for everything in it.
    std::vector<uint64_t> memory((size_t)lay_out(*mesh, *batch, nullptr, &s) / 8);
    lay_out(*mesh, *batch, (uint8_t*)memory.data(), &s);
    for (int i = next++; i < batch->count; i = next++) {
      s.item = i;
      render_one(&s, *out);
    }
  };
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(work);
  work();
  for (auto& t : pool) t.join();
}

// Where rays meet one solid: solid (kSolidFloats,), from and rays (N, 3); enters and leaves (N,),
// 0 and 0 where it is missed.
void hm_meet_solid(const float* solid, const double* from, const double* rays, int32_t count,
                   double* enters, double* leaves) {
  HmBatch batch = {};
  batch.solids = solid;
  Scene s = {};
  s.batch = &batch;
  const Solid o = load_solid(s, 0);
  for (int i = 0; i < count; ++i) {
    enters[i] = leaves[i] = 0.0;
    double t0, t1;
    if (!meet_ray(o, from + 3 * i, rays + 3 * i, &t0, &t1)) continue;
    enters[i] = t0;
    leaves[i] = t1;
  }
}

// The rasteriser alone, for tests: visibility and barycentrics of one mesh on a plain grid.
// vertices (V, 3), camera fx fy cx cy of the grid; face (N, N) int32, -1 = nothing;
// weights (N, N, 3), inverse_z (N, N); hits (N, N) int32 counts the faces over each sample.
void hm_rasterise(const float* vertices, const int32_t* faces, int32_t face_count,
                  const float* camera, int32_t size, int32_t* face, float* weights,
                  float* inverse_z, int32_t* hits) {
  std::vector<Planes> planes(face_count);
  std::vector<uint64_t> all((size_t)size * size, 0), one((size_t)size * size, 0);
  const Camera grid = {camera[0], camera[1], camera[2], camera[3]};
  for (int f = 0; f < face_count; ++f) {
    double P[3][3];
    for (int i = 0; i < 3; ++i) {
      for (int k = 0; k < 3; ++k) P[i][k] = vertices[3 * (int64_t)faces[3 * f + i] + k];
    }
    std::fill(one.begin(), one.end(), 0);
    draw_face(P, grid, size, f, 0.0f, &planes[f], one.data());
    for (size_t i = 0; i < one.size(); ++i) {
      hits[i] += one[i] != 0;
      if (one[i] > all[i]) all[i] = one[i];
    }
  }
  for (int y = 0; y < size; ++y) {
    for (int x = 0; x < size; ++x) {
      const int64_t i = (int64_t)y * size + x;
      face[i] = -1;
      if (all[i] == 0) continue;
      face[i] = face_of(all[i]);
      const Planes& t = planes[face[i]];
      inverse_z[i] = inverse_z_of(all[i]);
      const float dx = (float)(x - t.x0), dy = (float)(y - t.y0), z = 1.0f / inverse_z[i];
      weights[3 * i + 1] = at(t.first, dx, dy) * z;
      weights[3 * i + 2] = at(t.second, dx, dy) * z;
      weights[3 * i] = 1.0f - weights[3 * i + 1] - weights[3 * i + 2];
    }
  }
}

}  // extern "C"
