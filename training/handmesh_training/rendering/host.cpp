// The CPU's loops over the stages of raster.cpp and shade.cpp, and the functions Python calls.

#include "shade.cpp"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace {

struct Workspace {
  std::vector<Vec3> face_normals, normals, points, ambient, in_light;
  std::vector<Planes> planes;
  std::vector<uint64_t> visible;
  std::vector<float> shadow, albedo;
  std::vector<uint8_t> response;

  Workspace(const HmMesh& mesh, const HmBatch& batch)
      : face_normals(mesh.face_count), normals(mesh.vertex_count),
        points(mesh.vertex_count), ambient(mesh.vertex_count),
        in_light(mesh.vertex_count), planes(mesh.face_count),
        visible((size_t)kSuper * kSuper * batch.size * batch.size),
        shadow((size_t)batch.shadow_size * batch.shadow_size), albedo(3 * 256),
        response(kToneTable) {}
};

// The light's frame, fitted so that the mesh and what else casts shadow fall inside the map.
void fit_light(Scene* s) {
  s->light_z = load3(s->batch->key_direction + 3 * (int64_t)s->item);
  const Vec3 helper = fabsf(s->light_z.x) < 0.8f ? vec(1, 0, 0) : vec(0, 1, 0);
  s->light_x = normalised(cross(helper, s->light_z));
  s->light_y = cross(s->light_z, s->light_x);
  float lo[2] = {1e9f, 1e9f}, hi[2] = {-1e9f, -1e9f};
  auto include = [&](Vec3 p) {
    const float q[2] = {dot(p, s->light_x), dot(p, s->light_y)};
    for (int k = 0; k < 2; ++k) {
      lo[k] = fminf(lo[k], q[k]);
      hi[k] = fmaxf(hi[k], q[k]);
    }
  };
  for (int v = 0; v < s->mesh->vertex_count; ++v) include(vertex_of(*s, v));
  for (int i = 0; i < kSolids; ++i) {
    const Solid o = load_solid(*s, i);
    for (int k = 0; k < 8 && o.kind != kNoSolid && o.casts > 0.0f; ++k) include(corner_of(o, k));
  }
  const float extent = fmaxf(fmaxf(hi[0] - lo[0], hi[1] - lo[1]), 1e-6f);
  s->light_scale = (s->batch->shadow_size - 4) / extent;
  for (int k = 0; k < 2; ++k) s->light_origin[k] = lo[k] - 1.5f / s->light_scale;
}

// From the hand's middle to the arm's.
void find_arm(Scene* s) {
  Vec3 sum[2] = {vec(0, 0, 0), vec(0, 0, 0)};
  int count[2] = {0, 0};
  for (int v = 0; v < s->mesh->vertex_count; ++v) {
    const int beyond = s->mesh->arm[v] > 0.0f;
    sum[beyond] = add(sum[beyond], vertex_of(*s, v));
    ++count[beyond];
  }
  s->arm_axis = vec(0, 1, 0);
  if (count[0] == 0 || count[1] == 0) return;
  s->arm_axis = normalised(sub(scale(sum[1], 1.0f / count[1]), scale(sum[0], 1.0f / count[0])));
}

void fill_tables(const Scene& s) {
  const HmBatch& b = *s.batch;
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < 256; ++i) {
      const float v = (i + 0.5f) / 255.5f;  // textures are stored as square roots of light
      s.albedo[256 * c + i] =
          fminf(b.skin_gain[3 * s.item + c] * powf(v * v, b.skin_contrast[s.item]), 0.95f);
    }
  }
  const float gamma = b.tone[2 * s.item], shoulder = b.tone[2 * s.item + 1];
  for (int i = 0; i < kToneTable; ++i) {
    const float t = (float)i / (kToneTable - 1);
    float x = t * t * kToneMax;
    if (x > shoulder) x = shoulder + (1 - shoulder) * (1 - expf((shoulder - x) / (1 - shoulder)));
    x = x <= 0.0031308f ? 12.92f * x : 1.055f * powf(x, 1.0f / 2.4f) - 0.055f;
    s.response[i] = (uint8_t)(powf(clampf(x, 0.0f, 1.0f), gamma) * 255.0f + 0.5f);
  }
}

void render_one(Scene* s, Workspace* w, const HmOutput& out) {
  const float* k = s->batch->camera + 4 * (int64_t)s->item;
  // A sample's centre lies a quarter of a pixel off the pixel's.
  s->grid.fx = (double)k[0] * kSuper;
  s->grid.fy = (double)k[1] * kSuper;
  s->grid.cx = ((double)k[2] + 0.5) * kSuper - 0.5;
  s->grid.cy = ((double)k[3] + 0.5) * kSuper - 0.5;
  s->ray_step[0] = (float)(1.0 / s->grid.fx);
  s->ray_step[1] = (float)(1.0 / s->grid.fy);
  s->ray_start[0] = (float)(-s->grid.cx / s->grid.fx);
  s->ray_start[1] = (float)(-s->grid.cy / s->grid.fy);
  std::fill(w->visible.begin(), w->visible.end(), 0);
  std::fill(w->shadow.begin(), w->shadow.end(), -1e9f);
  fill_tables(*s);
  fit_light(s);
  find_arm(s);
  prepare_ground(s);
  for (int f = 0; f < s->mesh->face_count; ++f) face_normal(*s, f);
  for (int v = 0; v < s->mesh->vertex_count; ++v) shade_vertex(*s, v);
  for (int f = 0; f < s->mesh->face_count; ++f) draw_visible(*s, f);
  for (int f = 0; f < s->mesh->face_count; ++f) draw_shadow(*s, f);
  for (int i = 0; i < kSolids; ++i) draw_solid(*s, i);
  for (int i = 0; i < kSolids; ++i) draw_solid_shadow(*s, i);
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
    Workspace w(*mesh, *batch);
    Scene s;
    s.mesh = mesh;
    s.skins = skins;
    s.backgrounds = backgrounds;
    s.batch = batch;
    s.face_normals = w.face_normals.data();
    s.normals = w.normals.data();
    s.points = w.points.data();
    s.ambient = w.ambient.data();
    s.in_light = w.in_light.data();
    s.planes = w.planes.data();
    s.visible = w.visible.data();
    s.shadow = w.shadow.data();
    s.albedo = w.albedo.data();
    s.response = w.response.data();
    for (int i = next++; i < batch->count; i = next++) {
      s.item = i;
      render_one(&s, &w, *out);
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
